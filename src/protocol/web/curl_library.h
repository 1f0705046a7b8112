#pragma once

// The checks of argument types are macros over the functions' names; here they are called through
// pointers.
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

namespace cairn::web {

// The functions of libcurl that are used here, by name.
#define CAIRN_CURL_FUNCTIONS(F) \
  F(easy_cleanup)               \
  F(easy_getinfo)               \
  F(easy_init)                  \
  F(easy_reset)                 \
  F(easy_setopt)                \
  F(easy_strerror)              \
  F(global_init)                \
  F(multi_add_handle)           \
  F(multi_cleanup)              \
  F(multi_info_read)            \
  F(multi_init)                 \
  F(multi_perform)              \
  F(multi_poll)                 \
  F(multi_remove_handle)        \
  F(multi_setopt)               \
  F(multi_strerror)             \
  F(multi_wakeup)               \
  F(slist_append)               \
  F(slist_free_all)

// The library, bound when a URL is first opened. The build with GnuTLS is preferred, whose TLS
// library Cairn uses elsewhere too.
struct CurlLibrary {
#define CAIRN_CURL_MEMBER(name) decltype(&::curl_##name) name = nullptr;
  CAIRN_CURL_FUNCTIONS(CAIRN_CURL_MEMBER)
#undef CAIRN_CURL_MEMBER

  // From any thread. Throws kUnsupported, naming the package, when it is not there.
  static const CurlLibrary& get();
};

}  // namespace cairn::web
