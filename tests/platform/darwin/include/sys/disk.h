#pragma once
#include <stdint.h>
#include <sys/ioctl.h>

struct dk_extent_t {
  uint64_t offset;
  uint64_t length;
};
struct dk_unmap_t {
  dk_extent_t* extents;
  uint32_t extentsCount;
  uint32_t options;
};
#define DKIOCGETBLOCKSIZE _IOR('d', 24, uint32_t)
#define DKIOCGETBLOCKCOUNT _IOR('d', 25, uint64_t)
#define DKIOCISWRITABLE _IOR('d', 29, uint32_t)
#define DKIOCUNMAP _IOW('d', 31, dk_unmap_t)
