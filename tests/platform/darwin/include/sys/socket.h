#pragma once
#include_next <sys/socket.h>
#undef MSG_NOSIGNAL
#undef AF_VSOCK
#define SO_NOSIGPIPE 0x1022
