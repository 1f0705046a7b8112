#include "protocol/gluster/gfapi_library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace cairn::gluster {
namespace {

GfapiLibrary bind_library() {
  void* library = ::dlopen("libgfapi.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(ErrorKind::kUnsupported, "GlusterFS needs the library libgfapi.so.0")
        .hint("Install it with: apt-get install libgfapi0");
  GfapiLibrary table;
  const auto bind = [library](const char* name) {
    void* found = ::dlsym(library, name);
    if (found == nullptr)
      throw Error(ErrorKind::kUnsupported, std::string("libgfapi has no function ") + name);
    return found;
  };
#define CAIRN_GFAPI_BIND(name) table.name = reinterpret_cast<decltype(table.name)>(bind(#name));
  CAIRN_GFAPI_FUNCTIONS(CAIRN_GFAPI_BIND)
#undef CAIRN_GFAPI_BIND
  return table;
}

}  // namespace

const GfapiLibrary& GfapiLibrary::get() {
  // What is loaded stays the same for everybody in the process.
  static const GfapiLibrary table = bind_library();
  return table;
}

}  // namespace cairn::gluster
