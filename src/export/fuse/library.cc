#include "export/fuse/library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace cairn::fuse {
namespace {

constexpr const char* kFileName = "libfuse3.so.3";

[[noreturn]] void refuse(const std::string& why) {
  throw Error(ErrorKind::kUnsupported, "Mounting needs the library libfuse3: " + why)
      .hint("Install it with: apt-get install fuse3 libfuse3-3");
}

template <class F>
void find(void* handle, const char* name, F* function) {
  void* symbol = ::dlsym(handle, name);
  if (symbol == nullptr) refuse(std::string(kFileName) + " is too old: it has no " + name);
  *function = reinterpret_cast<F>(symbol);
}

Library load_all() {
  void* handle = ::dlopen(kFileName, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) refuse(::dlerror());
  Library library;
  find(handle, "fuse_session_new", &library.session_new);
  find(handle, "fuse_session_mount", &library.session_mount);
  find(handle, "fuse_session_unmount", &library.session_unmount);
  find(handle, "fuse_session_destroy", &library.session_destroy);
  find(handle, "fuse_session_fd", &library.session_fd);
  find(handle, "fuse_session_custom_io", &library.session_custom_io);
  find(handle, "fuse_session_process_buf", &library.session_process_buf);
  find(handle, "fuse_set_log_func", &library.set_log_func);
  find(handle, "fuse_opt_add_arg", &library.opt_add_arg);
  find(handle, "fuse_opt_free_args", &library.opt_free_args);
  find(handle, "fuse_reply_err", &library.reply_err);
  find(handle, "fuse_reply_entry", &library.reply_entry);
  find(handle, "fuse_reply_attr", &library.reply_attr);
  find(handle, "fuse_reply_open", &library.reply_open);
  find(handle, "fuse_reply_write", &library.reply_write);
  find(handle, "fuse_reply_buf", &library.reply_buf);
  find(handle, "fuse_reply_statfs", &library.reply_statfs);
  find(handle, "fuse_reply_lseek", &library.reply_lseek);
  find(handle, "fuse_add_direntry", &library.add_direntry);
  return library;
}

}  // namespace

const Library& Library::load() {
  // The library keeps state of its process and cannot be unloaded: there is one of it.
  static const Library library = load_all();
  return library;
}

}  // namespace cairn::fuse
