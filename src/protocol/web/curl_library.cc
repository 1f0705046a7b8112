#include "protocol/web/curl_library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace cairn::web {
namespace {

void* symbol(void* library, const char* name) {
  void* found = ::dlsym(library, name);
  if (found == nullptr)
    throw Error(ErrorKind::kUnsupported, std::string("libcurl has no function ") + name);
  return found;
}

CurlLibrary bind_library() {
  void* library = nullptr;
  for (const char* name : {"libcurl-gnutls.so.4", "libcurl.so.4"})
    if (library == nullptr) library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(ErrorKind::kUnsupported, "HTTP and FTP need the library libcurl-gnutls.so.4")
        .hint("Install it with: apt-get install libcurl3-gnutls");
  CurlLibrary table;
#define CAIRN_CURL_BIND(name) \
  table.name = reinterpret_cast<decltype(table.name)>(symbol(library, "curl_" #name));
  CAIRN_CURL_FUNCTIONS(CAIRN_CURL_BIND)
#undef CAIRN_CURL_BIND
  // Counted by the library: what another user of it in this process has set stays.
  if (table.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
    throw Error(ErrorKind::kUnsupported, "libcurl could not be set up");
  return table;
}

}  // namespace

const CurlLibrary& CurlLibrary::get() {
  // What is loaded stays the same for everybody in the process.
  static const CurlLibrary table = bind_library();
  return table;
}

}  // namespace cairn::web
