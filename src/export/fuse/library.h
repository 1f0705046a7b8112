#pragma once

#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>

namespace cairn::fuse {

// What is used of libfuse3, which is loaded when something is mounted: the program starts without
// it and runs where it is not installed.
struct Library {
  // Throws kUnsupported, with the package to install, when the library is missing or too old.
  static const Library& load();

  decltype(&::fuse_session_mount) session_mount = nullptr;
  decltype(&::fuse_session_unmount) session_unmount = nullptr;
  decltype(&::fuse_session_destroy) session_destroy = nullptr;
  decltype(&::fuse_session_fd) session_fd = nullptr;
  decltype(&::fuse_session_custom_io) session_custom_io = nullptr;
  decltype(&::fuse_session_process_buf) session_process_buf = nullptr;
  decltype(&::fuse_session_new) session_new = nullptr;
  decltype(&::fuse_set_log_func) set_log_func = nullptr;
  decltype(&::fuse_opt_add_arg) opt_add_arg = nullptr;
  decltype(&::fuse_opt_free_args) opt_free_args = nullptr;
  decltype(&::fuse_reply_err) reply_err = nullptr;
  decltype(&::fuse_reply_entry) reply_entry = nullptr;
  decltype(&::fuse_reply_attr) reply_attr = nullptr;
  decltype(&::fuse_reply_open) reply_open = nullptr;
  decltype(&::fuse_reply_write) reply_write = nullptr;
  decltype(&::fuse_reply_buf) reply_buf = nullptr;
  decltype(&::fuse_reply_statfs) reply_statfs = nullptr;
  decltype(&::fuse_reply_lseek) reply_lseek = nullptr;
  decltype(&::fuse_add_direntry) add_direntry = nullptr;
};

}  // namespace cairn::fuse
