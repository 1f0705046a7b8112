#pragma once

#include <cstdint>

extern "C" {
#include <glusterfs/api/glfs.h>
}

namespace cairn::gluster {

// The functions of libgfapi that are used here, by name.
#define CAIRN_GFAPI_FUNCTIONS(F) \
  F(glfs_close)                  \
  F(glfs_creat)                  \
  F(glfs_discard_async)          \
  F(glfs_fallocate)              \
  F(glfs_fini)                   \
  F(glfs_fstat)                  \
  F(glfs_fsync_async)            \
  F(glfs_ftruncate)              \
  F(glfs_init)                   \
  F(glfs_lseek)                  \
  F(glfs_new)                    \
  F(glfs_open)                   \
  F(glfs_preadv_async)           \
  F(glfs_pwritev_async)          \
  F(glfs_set_logging)            \
  F(glfs_set_volfile_server)     \
  F(glfs_set_xlator_option)      \
  F(glfs_unlink)                 \
  F(glfs_zerofill)               \
  F(glfs_zerofill_async)

// The library, bound when a disk of a volume is first opened.
struct GfapiLibrary {
#define CAIRN_GFAPI_MEMBER(name) decltype(&::name) name = nullptr;
  CAIRN_GFAPI_FUNCTIONS(CAIRN_GFAPI_MEMBER)
#undef CAIRN_GFAPI_MEMBER

  // From any thread. Throws kUnsupported, naming the package, when it is not there.
  static const GfapiLibrary& get();
};

}  // namespace cairn::gluster
