#include "protocol/iscsi/iscsi_library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace cairn::iscsi {
namespace {

IscsiLibrary bind_library() {
  void* library = nullptr;
  for (const char* name : {"libiscsi.so.7", "libiscsi.so.9", "libiscsi.so.10"})
    if (library == nullptr) library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(ErrorKind::kUnsupported, "iSCSI needs the library libiscsi.so.7")
        .hint("Install it with: apt-get install libiscsi7");
  IscsiLibrary table;
  const auto bind = [library](const char* name) {
    void* found = ::dlsym(library, name);
    if (found == nullptr)
      throw Error(ErrorKind::kUnsupported, std::string("libiscsi has no function ") + name);
    return found;
  };
#define CAIRN_ISCSI_BIND(name) table.name = reinterpret_cast<decltype(table.name)>(bind(#name));
  CAIRN_ISCSI_FUNCTIONS(CAIRN_ISCSI_BIND)
#undef CAIRN_ISCSI_BIND
  return table;
}

}  // namespace

const IscsiLibrary& IscsiLibrary::get() {
  // What is loaded stays the same for everybody in the process.
  static const IscsiLibrary table = bind_library();
  return table;
}

}  // namespace cairn::iscsi
