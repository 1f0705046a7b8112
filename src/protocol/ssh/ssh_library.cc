#include "protocol/ssh/ssh_library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace cairn::ssh {
namespace {

SshLibrary bind_library() {
  void* library = nullptr;
  for (const char* name : {"libssh.so.4", "libssh-gcrypt.so.4"})
    if (library == nullptr) library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(ErrorKind::kUnsupported, "SSH needs the library libssh.so.4")
        .hint("Install it with: apt-get install libssh-4");
  SshLibrary table;
  const auto bind = [library](const char* name) {
    void* found = ::dlsym(library, name);
    if (found == nullptr)
      throw Error(ErrorKind::kUnsupported, std::string("libssh has no function ") + name);
    return found;
  };
#define CAIRN_SSH_BIND(name) \
  table.name##_ = reinterpret_cast<decltype(table.name##_)>(bind("ssh_" #name));
  CAIRN_SSH_FUNCTIONS(CAIRN_SSH_BIND)
#undef CAIRN_SSH_BIND
  // Counted by the library: another user of it in this process may have called it as well.
  if (table.init_() != 0) throw Error(ErrorKind::kUnsupported, "libssh could not be set up");
  return table;
}

}  // namespace

const SshLibrary& SshLibrary::get() {
  // What is loaded stays the same for everybody in the process.
  static const SshLibrary table = bind_library();
  return table;
}

}  // namespace cairn::ssh
