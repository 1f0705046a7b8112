#pragma once

#include <sys/socket.h>

#include "platform/socket.h"

// What the systems of the POSIX family have each in their own way.
namespace cairn::platform {

// That the peer sends no more, for poll().
extern const short kPeerClosed;
// For sendmsg(): no signal where the peer has gone.
extern const int kNoSignal;
// A socket that blocks nothing, and which programs that are started do not get.
int stream_socket(int family, bool multipath);
int accept_stream(int listener);
bool is_vsock(const sockaddr& address);
NameText vsock_text(const SocketName& name);

}  // namespace cairn::platform
