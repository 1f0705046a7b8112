#pragma once
#include <stdint.h>

struct statfs {
  uint32_t f_bsize;
  uint64_t f_blocks;
  uint64_t f_bfree;
  uint64_t f_bavail;
  char f_fstypename[16];
  char f_mntonname[1024];
  char f_mntfromname[1024];
};
#define MNT_NOWAIT 2
extern "C" int darwin_fstatfs(int fd, struct statfs* found);
extern "C" int darwin_statfs(const char* path, struct statfs* found);
#define fstatfs darwin_fstatfs
#define statfs(path, found) darwin_statfs(path, found)
extern "C" int getmntinfo(struct statfs** mounts, int flags);
