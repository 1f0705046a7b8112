#pragma once

// libnfs.h uses it without including it.
#include <sys/time.h>

#include <cstdint>

extern "C" {
#include <nfsc/libnfs-zdr.h>
#include <nfsc/libnfs.h>
}
// They use what those define.
extern "C" {
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw.h>
}

namespace cairn::nfs {

// The functions of libnfs that are used here, by name.
#define CAIRN_NFS_FUNCTIONS(F) \
  F(nfs4_set_client_name)      \
  F(nfs4_set_verifier)         \
  F(nfs_close_async)           \
  F(nfs_destroy_context)       \
  F(nfs_destroy_url)           \
  F(nfs_fstat64_async)         \
  F(nfs_fsync_async)           \
  F(nfs_ftruncate_async)       \
  F(nfs_get_error)             \
  F(nfs_get_fd)                \
  F(nfs_get_fh)                \
  F(nfs_get_readmax)           \
  F(nfs_get_rpc_context)       \
  F(nfs_get_writemax)          \
  F(nfs_init_context)          \
  F(nfs_mount_async)           \
  F(nfs_open2_async)           \
  F(nfs_open_async)            \
  F(nfs_parse_url_incomplete)  \
  F(nfs_pread_async)           \
  F(nfs_pwrite_async)          \
  F(nfs_service)               \
  F(nfs_set_autoreconnect)     \
  F(nfs_set_debug)             \
  F(nfs_set_gid)               \
  F(nfs_set_pagecache)         \
  F(nfs_set_readahead)         \
  F(nfs_set_tcp_syncnt)        \
  F(nfs_set_uid)               \
  F(nfs_set_version)           \
  F(nfs_unlink_async)          \
  F(nfs_which_events)          \
  F(nfsstat3_to_errno)         \
  F(nfsstat3_to_str)           \
  F(rpc_nfs3_commit_async)     \
  F(rpc_nfs3_read_async)       \
  F(rpc_nfs3_write_async)

// The library, bound when a disk of an NFS server is first opened.
struct NfsLibrary {
#define CAIRN_NFS_MEMBER(name) decltype(&::name) name = nullptr;
  CAIRN_NFS_FUNCTIONS(CAIRN_NFS_MEMBER)
#undef CAIRN_NFS_MEMBER

  // From any thread. Throws kUnsupported, naming the package, when it is not there.
  static const NfsLibrary& get();
};

}  // namespace cairn::nfs
