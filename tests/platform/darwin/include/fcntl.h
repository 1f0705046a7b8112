// What the kernel of macOS has besides, in the words of its manual pages; and what it lacks.
#pragma once
#include_next <fcntl.h>
#undef O_DIRECT
#undef O_TMPFILE
#undef O_PATH
#undef F_OFD_SETLK
#undef F_OFD_GETLK
#define F_PREALLOCATE 1042
#define F_NOCACHE 1048
#define F_GETPATH 1050
#define F_FULLFSYNC 1051
#define F_PUNCHHOLE 1099
#define F_ALLOCATECONTIG 2
#define F_ALLOCATEALL 4
#define F_PEOFPOSMODE 3

struct fpunchhole_t {
  unsigned fp_flags;
  unsigned reserved;
  off_t fp_offset;
  off_t fp_length;
};
struct fstore_t {
  unsigned fst_flags;
  int fst_posmode;
  off_t fst_offset;
  off_t fst_length;
  off_t fst_bytesalloc;
};

extern "C" int darwin_fcntl(int fd, int command, ...);
#define fcntl darwin_fcntl

// Taken in place of the other one, for which MODE is one of any number of words.
int open(const char* path, int flags, unsigned mode);
