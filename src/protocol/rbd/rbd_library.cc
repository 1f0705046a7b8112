#include "protocol/rbd/rbd_library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace cairn::rbd {
namespace {

void* load(const std::string& name) {
  void* library = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(ErrorKind::kUnsupported, "images of a Ceph cluster need the library " + name)
        .hint("Install it with: apt-get install librbd1");
  return library;
}

void* find(void* library, const char* name) {
  void* found = ::dlsym(library, name);
  if (found == nullptr)
    throw Error(ErrorKind::kUnsupported, std::string("librbd has no function ") + name)
        .hint("Version 16 or later is needed.");
  return found;
}

RbdLibrary bind_libraries() {
  void* const rados = load("librados.so.2");
  void* const rbd = load("librbd.so.1");
  RbdLibrary table;
#define CAIRN_RADOS_BIND(name) \
  table.name = reinterpret_cast<decltype(table.name)>(find(rados, #name));
  CAIRN_RADOS_FUNCTIONS(CAIRN_RADOS_BIND)
#undef CAIRN_RADOS_BIND
#define CAIRN_RBD_BIND(name) table.name = reinterpret_cast<decltype(table.name)>(find(rbd, #name));
  CAIRN_RBD_FUNCTIONS(CAIRN_RBD_BIND)
#undef CAIRN_RBD_BIND
  return table;
}

}  // namespace

const RbdLibrary& RbdLibrary::get() {
  // What is loaded stays the same for everybody in the process.
  static const RbdLibrary table = bind_libraries();
  return table;
}

}  // namespace cairn::rbd
