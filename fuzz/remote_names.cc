// Names of files on servers.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "protocol/gluster/location.h"
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

// The options of a URI mean what it means.
void gluster_uri(std::string_view text) {
  const gluster::Location first = gluster::parse_uri(text);
  Options options;
  gluster::add_options(first, options);
  const gluster::Location second = gluster::location_of(options);
  if (second.volume != first.volume || second.path != first.path || second.servers != first.servers)
    std::abort();
}

template <class Parse>
void attempt(Parse parse) {
  try {
    parse();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] { nfs_uri(text); });
  attempt([&] { gluster_uri(text); });
  return 0;
}
