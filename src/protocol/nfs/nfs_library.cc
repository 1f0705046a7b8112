#include "protocol/nfs/nfs_library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace cairn::nfs {
namespace {

NfsLibrary bind_library() {
  void* library = ::dlopen("libnfs.so.13", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(ErrorKind::kUnsupported, "NFS needs the library libnfs.so.13")
        .hint("Install it with: apt-get install libnfs13");
  NfsLibrary table;
  const auto bind = [library](const char* name) {
    void* found = ::dlsym(library, name);
    if (found == nullptr)
      throw Error(ErrorKind::kUnsupported, std::string("libnfs has no function ") + name);
    return found;
  };
#define CAIRN_NFS_BIND(name) table.name = reinterpret_cast<decltype(table.name)>(bind(#name));
  CAIRN_NFS_FUNCTIONS(CAIRN_NFS_BIND)
#undef CAIRN_NFS_BIND
  return table;
}

}  // namespace

const NfsLibrary& NfsLibrary::get() {
  // What is loaded stays the same for everybody in the process.
  static const NfsLibrary table = bind_library();
  return table;
}

}  // namespace cairn::nfs
