// What NVMe controllers say of themselves and of their disks, what they write when commands end,
// and the names by which they are reached.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "protocol/nvme/address.h"
#include "protocol/nvme/layout.h"
#include "protocol/nvme/prp.h"
#include "protocol/nvme/queue_pair.h"

namespace {

using namespace cairn;
using namespace cairn::nvme;

constexpr uint64_t kPageBytes = 4096;

template <class Parse>
void attempt(Parse parse) {
  try {
    parse();
  } catch (const Error&) {
  }
}

// Has doorbells and nothing else.
class Doorbells : public Device {
 public:
  uint64_t register_bytes() const override { return 0x2000; }
  uint32_t read32(uint64_t) override { return 0; }
  uint64_t read64(uint64_t) override { return 0; }
  void write32(uint64_t offset, uint32_t value) override {
    if (offset < kDoorbellsAt || offset + 4 > register_bytes() || value >= kEntries) std::abort();
  }
  void write64(uint64_t, uint64_t) override { std::abort(); }
  uint64_t map_bytes() const override { return kPageBytes; }
  std::vector<AddressRange> ranges() const override { return {}; }
  void map(ByteSpan, uint64_t, bool) override {}
  void unmap(uint64_t, uint64_t) noexcept override {}
  unsigned vectors() const override { return 0; }
  std::vector<int> enable_interrupts(unsigned) override { return {}; }
  std::optional<int> removal() const override { return std::nullopt; }
  bool reset() override { return false; }
  void close() noexcept override {}

  static constexpr uint32_t kEntries = 8;
};

// A controller that writes what it likes to the completion queue, entry after entry.
void run_queue(ByteSpan bytes) {
  Doorbells device;
  std::vector<std::byte> submissions(Doorbells::kEntries * kCommandBytes);
  std::vector<std::byte> completions(Doorbells::kEntries * kCompletionBytes);
  QueuePair queues(device, {.number = 1,
                            .entries = Doorbells::kEntries,
                            .submissions = submissions,
                            .completions = completions,
                            .doorbell_bytes = 4});
  for (size_t at = 0; at + kCompletionBytes <= bytes.size(); at += kCompletionBytes) {
    while (queues.room() != 0) queues.push(flush_command(1), 7);
    queues.ring();
    const size_t place = at % completions.size();
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(at), kCompletionBytes,
                completions.begin() + static_cast<ptrdiff_t>(place));
    while (queues.pop())
      if (queues.room() >= Doorbells::kEntries) std::abort();
    queues.acknowledge();
  }
}

void check_name(std::string_view text) {
  const std::string name = PciAddress::parse(text).text();
  // It becomes a part of paths.
  if (name.size() != 12 || name.find('/') != std::string::npos || name.find("..") == 0)
    std::abort();
  if (PciAddress::parse(name).text() != name) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(reinterpret_cast<const std::byte*>(data), size);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] {
    const auto seen = nvme::Capabilities::decode(load_le<uint64_t>(bytes, 0), kPageBytes);
    if (seen.most_entries < 2 || seen.page_bytes > kPageBytes || seen.timeout.count() < 500)
      std::abort();
  });
  attempt([&] {
    if (Completion::decode(bytes).status.text().empty()) std::abort();
  });
  attempt([&] {
    const auto seen = ControllerIdentity::decode(bytes, kPageBytes);
    if (seen.serial.size() > 20 || seen.model.size() > 40 || seen.firmware.size() > 8) std::abort();
    if (seen.most_bytes % kPageBytes != 0) std::abort();
  });
  attempt([&] {
    const auto seen = NamespaceIdentity::decode(bytes, kPageBytes);
    if (seen.block_bytes < 512 || seen.block_bytes > kPageBytes) std::abort();
    if (seen.length() / seen.block_bytes != seen.blocks || seen.length() > INT64_MAX) std::abort();
  });
  attempt([&] {
    std::vector<std::byte> list(kPageBytes);
    make_prps(load_le<uint64_t>(bytes, 0), load_le<uint64_t>(bytes, 8), kPageBytes, 0, list);
  });
  attempt([&] { run_queue(bytes); });
  attempt([&] { check_name(text); });
  attempt([&] { parse_namespace(text); });
  return 0;
}
