#include "net/gnutls.h"

#include <fmt/core.h>

#include <string>

#include "base/error.h"
#include "platform/thread.h"

namespace cairn {
namespace {

// libgnutls.so.30 has kept its interface since GnuTLS 3.4.
constexpr const char* kLibrary = "libgnutls.so.30";

void* symbol(void* library, const char* name) {
  void* found = platform::find_symbol(library, name);
  if (found == nullptr)
    throw Error(ErrorKind::kUnsupported, fmt::format("TLS: {} has no {}", kLibrary, name));
  return found;
}

GnuTls bind_library() {
  void* library = platform::load_library(kLibrary);
  if (library == nullptr)
    throw Error(ErrorKind::kUnsupported, std::string("TLS needs the library ") + kLibrary)
        .hint("Install it with: apt-get install libgnutls30");
  GnuTls table;
#define CAIRN_GNUTLS_BIND(name) \
  table.name = reinterpret_cast<decltype(table.name)>(symbol(library, "gnutls_" #name));
  CAIRN_GNUTLS_FUNCTIONS(CAIRN_GNUTLS_BIND)
#undef CAIRN_GNUTLS_BIND
  return table;
}

}  // namespace

const GnuTls& GnuTls::get() {
  // What is loaded stays the same for everybody in the process.
  static const GnuTls table = bind_library();
  return table;
}

}  // namespace cairn
