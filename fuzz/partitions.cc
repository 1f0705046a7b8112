// Partition tables on a small disk, as they would be found on one by a stranger: reading must end,
// and every partition lies within the disk. The checksums of GPT are made to fit, or nothing would
// be found behind them.
#include "block/partitions.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "async/runtime.h"
#include "base/error.h"

namespace {

using namespace cairn;

uint32_t checksum(ByteSpan bytes) {
  uint32_t state = ~0u;
  for (const std::byte one : bytes) {
    state ^= static_cast<uint8_t>(one);
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0xedb88320u : 0);
  }
  return ~state;
}

class Memory : public PartitionSource {
 public:
  explicit Memory(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  uint64_t length() const override { return bytes_.size(); }
  Task<void> read(uint64_t offset, MutableByteSpan out) override {
    if (++reads_ > 1000 || offset > bytes_.size() || out.size() > bytes_.size() - offset)
      std::abort();
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
    co_return;
  }

 private:
  std::vector<std::byte> bytes_;
  unsigned reads_ = 0;
};

void fix_sums(MutableByteSpan disk) {
  if (disk.size() < 1024 || std::memcmp(disk.data() + 512, "EFI PART", 8) != 0) return;
  const MutableByteSpan header = disk.subspan(512, 512);
  const uint64_t entries = load_le<uint64_t>(header, 72);
  const uint64_t bytes = uint64_t{load_le<uint32_t>(header, 80)} * load_le<uint32_t>(header, 84);
  if (entries < disk.size() / 512 && bytes <= disk.size() - entries * 512)
    store_le<uint32_t>(header, 88, checksum(disk.subspan(entries * 512, bytes)));
  const uint32_t size = load_le<uint32_t>(header, 12);
  if (size < 92 || size > 512) return;
  store_le<uint32_t>(header, 16, 0);
  store_le<uint32_t>(header, 16, checksum(header.first(size)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Runtime runtime;
  std::vector<std::byte> disk(size);
  std::memcpy(disk.data(), data, size);
  fix_sums(disk);
  Memory source(std::move(disk));
  try {
    const PartitionTable table = runtime.run(read_partitions(source));
    for (const Partition& partition : table.partitions)
      if (partition.length == 0 || partition.offset > size ||
          partition.length > size - partition.offset)
        std::abort();
  } catch (const Error&) {
  }
  return 0;
}
