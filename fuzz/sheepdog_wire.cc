// Answers, inodes and indexes of Sheepdog daemons, and the names by which VDIs are reached.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "protocol/sheepdog/location.h"
#include "protocol/sheepdog/wire.h"

namespace {

using namespace cairn;
using namespace cairn::sheepdog;

template <class Parse>
void attempt(Parse parse) {
  try {
    parse();
  } catch (const Error&) {
  }
}

// What is said of a name must lead to the same VDI again.
void check_name(std::string_view text) {
  Options options = parse_name(text);
  const VdiName vdi = vdi_of(options);
  const std::vector<SocketAddress> servers = servers_of(options);
  if (servers.size() != 1 || vdi.name.empty() || vdi.name.size() > kLongestName) std::abort();
  const std::string uri = uri_of(servers.front(), vdi);
  if (uri.empty()) return;
  Options again = parse_name(uri);
  const VdiName same = vdi_of(again);
  if (same.name != vdi.name || same.tag != vdi.tag || same.snapshot != vdi.snapshot) std::abort();
  if (servers_of(again) != servers) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(reinterpret_cast<const std::byte*>(data), size);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] { Response::decode(bytes); });
  attempt([&] {
    const Inode inode = Inode::decode(bytes);
    inode.check(inode.vdi);
    if (inode.object_count() > kMaxObjects) std::abort();
    if (inode.object_count() * inode.object_bytes() < inode.size) std::abort();
    if (inode.name.size() > kNameBytes || inode.tag.size() > kNameBytes) std::abort();
  });
  attempt([&] {
    for (const uint32_t vdi : decode_index(bytes))
      if (vdi >= kVdis) std::abort();
  });
  attempt([&] { Redundancy::parse(text); });
  attempt([&] { check_name(text); });
  return 0;
}
