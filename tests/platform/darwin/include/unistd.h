#pragma once
#include_next <unistd.h>

#define SYNC_VOLUME_FULLSYNC 1
#define SYNC_VOLUME_WAIT 2
extern "C" int fsync_volume_np(int fd, int flags);
