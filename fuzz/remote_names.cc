// Names of files on servers.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "protocol/nfs/location.h"

namespace {

using namespace cairn;

// What a URI means stays the same when it is written anew.
void nfs_uri(std::string_view text) {
  const Options first = nfs::parse_uri(text);
  const std::string path = *first.string("path");
  const std::string host = *first.string("server.host");
  nfs::split_path(path);
  if (host.find_first_of("/?#[]@%") != std::string::npos) return;
  const Options second = nfs::parse_uri(nfs::make_uri(host, path, ""));
  if (second.string("path") != path || second.string("server.host") != host) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    nfs_uri({reinterpret_cast<const char*>(data), size});
  } catch (const Error&) {
  }
  return 0;
}
