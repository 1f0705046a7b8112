// src/platform: what the operating system gives: files, directories, locks, wake-ups, sockets,
// terminals, random bytes, pages of memory, threads and clocks. The headers here are the same for
// every system; linux/, posix/ (Linux and macOS) and windows/ implement them. It may include
// headers of the system, and nothing of Cairn outside of this directory. Rooms above ask it instead
// of the system; what only one system has is in files below linux/ of their own.
//
// A file, a socket and a wake-up are known by a descriptor, a small number as POSIX has it. A
// function that fails returns -1, or an empty optional, and sets errno to a number of POSIX, on
// every system. Names of files are UTF-8. All functions may be called from any thread.
#pragma once

#include "platform/device.h"
#include "platform/directory.h"
#include "platform/drives.h"
#include "platform/file.h"
#include "platform/folder.h"
#include "platform/lock.h"
#include "platform/memory.h"
#include "platform/poll.h"
#include "platform/socket.h"
#include "platform/system.h"
#include "platform/terminal.h"
#include "platform/thread.h"
#include "platform/types.h"
#include "platform/wake.h"
