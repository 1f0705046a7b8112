#pragma once
#include_next <unistd.h>

#define SYNC_VOLUME_FULLSYNC 1
#define SYNC_VOLUME_WAIT 2
extern "C" int fsync_volume_np(int fd, int flags);

extern "C" ssize_t darwin_pread(int fd, void* bytes, size_t count, off_t offset);
#define pread darwin_pread
