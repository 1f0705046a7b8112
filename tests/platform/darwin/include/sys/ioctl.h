#pragma once
#include_next <sys/ioctl.h>

extern "C" int darwin_ioctl(int fd, unsigned long request, ...);
#define ioctl darwin_ioctl
