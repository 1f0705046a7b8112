// Frames of an SFTP server, and the names by which one is reached.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "protocol/ssh/frames.h"
#include "protocol/ssh/host_key.h"
#include "protocol/ssh/location.h"

namespace {

using namespace cairn;
using namespace cairn::ssh;

template <class Parse>
void attempt(Parse parse) {
  try {
    parse();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(reinterpret_cast<const std::byte*>(data), size);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] { parse_version(bytes); });
  attempt([&] {
    const TransferLimits limits = parse_limits(bytes);
    if (limits.read == 0 || limits.read > kMostFrameBytes) std::abort();
    if (limits.write == 0 || limits.write > kMostFrameBytes) std::abort();
  });
  attempt([&] { FrameReader(bytes).attributes(); });
  attempt([&] { HostKeyCheck::parse(text); });
  attempt([&] { parse_uri(text, [](const std::string&) {}); });
  return 0;
}
