#pragma once

extern "C" {
#include <rados/librados.h>
#include <rbd/librbd.h>
}

namespace cairn::rbd {

// The functions of librados and librbd that are used here, by name.
#define CAIRN_RADOS_FUNCTIONS(F) \
  F(rados_conf_get)              \
  F(rados_conf_parse_env)        \
  F(rados_conf_read_file)        \
  F(rados_conf_set)              \
  F(rados_connect)               \
  F(rados_create)                \
  F(rados_ioctx_create)          \
  F(rados_ioctx_destroy)         \
  F(rados_ioctx_set_namespace)   \
  F(rados_shutdown)

#define CAIRN_RBD_FUNCTIONS(F)   \
  F(rbd_aio_create_completion)   \
  F(rbd_aio_discard)             \
  F(rbd_aio_flush)               \
  F(rbd_aio_get_return_value)    \
  F(rbd_aio_read)                \
  F(rbd_aio_release)             \
  F(rbd_aio_write)               \
  F(rbd_aio_write_zeroes)        \
  F(rbd_close)                   \
  F(rbd_create)                  \
  F(rbd_diff_iterate2)           \
  F(rbd_encryption_format)       \
  F(rbd_encryption_load)         \
  F(rbd_get_features)            \
  F(rbd_get_size)                \
  F(rbd_lock_acquire)            \
  F(rbd_lock_get_owners)         \
  F(rbd_lock_get_owners_cleanup) \
  F(rbd_namespace_exists)        \
  F(rbd_open)                    \
  F(rbd_open_read_only)          \
  F(rbd_remove)                  \
  F(rbd_resize2)                 \
  F(rbd_snap_create)             \
  F(rbd_snap_get_timestamp)      \
  F(rbd_snap_list)               \
  F(rbd_snap_list_end)           \
  F(rbd_snap_remove)             \
  F(rbd_snap_rollback)           \
  F(rbd_snap_set)                \
  F(rbd_stat)

// The libraries, bound when an image of a Ceph cluster is first opened.
struct RbdLibrary {
#define CAIRN_RBD_MEMBER(name) decltype(&::name) name = nullptr;
  CAIRN_RADOS_FUNCTIONS(CAIRN_RBD_MEMBER)
  CAIRN_RBD_FUNCTIONS(CAIRN_RBD_MEMBER)
#undef CAIRN_RBD_MEMBER

  // From any thread. Throws kUnsupported, naming the package, when they are not there.
  static const RbdLibrary& get();
};

}  // namespace cairn::rbd
