// The partition parser by itself: every byte of a table set to extremes, disks of odd sizes.
#include "block/partitions.h"

#include <cstring>

#include "support.h"

namespace cairn {
namespace {

using testing_support::World;

class Memory : public PartitionSource {
 public:
  explicit Memory(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  uint64_t length() const override { return bytes_.size(); }
  Task<void> read(uint64_t offset, MutableByteSpan out) override {
    ++reads;
    EXPECT_LE(offset, bytes_.size());
    EXPECT_LE(out.size(), bytes_.size() - offset);
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
    co_return;
  }
  unsigned reads = 0;
  std::vector<std::byte> bytes_;
};

void put_entry(MutableByteSpan sector, size_t slot, uint8_t type, uint32_t first, uint32_t count) {
  sector[446 + 16 * slot + 4] = std::byte{type};
  store_le<uint32_t>(sector, 446 + 16 * slot + 8, first);
  store_le<uint32_t>(sector, 446 + 16 * slot + 12, count);
  store_be<uint16_t>(sector, 510, 0x55aa);
}

std::vector<std::byte> disk_with_logical(unsigned logical) {
  std::vector<std::byte> disk((1024 + 16 * (size_t{logical} + 1)) * 512);
  const MutableByteSpan all = disk;
  put_entry(all.first(512), 0, 0x83, 64, 100);
  put_entry(all.first(512), 3, 0x0f, 1024, 6000);
  for (unsigned i = 0; i < logical; ++i) {
    const MutableByteSpan link = all.subspan((1024 + 16 * i) * 512, 512);
    put_entry(link, 0, 0x82, 1, 10);
    if (i + 1 < logical) put_entry(link, 1, 0x05, 16 * (i + 1), 16);
  }
  return disk;
}

TEST(Partitions, MbrWithLogicalOnes) {
  World world;
  Memory source(disk_with_logical(3));
  const PartitionTable table = world.run(read_partitions(source));
  EXPECT_EQ(table.scheme, "MBR");
  EXPECT_TRUE(table.warnings.empty());
  ASSERT_EQ(table.partitions.size(), 4u);
  EXPECT_EQ(table.partitions[0].number, 1u);
  EXPECT_EQ(table.partitions[0].offset, 64u * 512);
  EXPECT_EQ(table.partitions[3].number, 7u);
  EXPECT_EQ(table.partitions[3].offset, (1024u + 32 + 1) * 512);
  EXPECT_EQ(table.partitions[3].length, 5120u);
  EXPECT_EQ(table.partitions[3].type, "Linux swap");
}

TEST(Partitions, AChainIsBounded) {
  World world;
  Memory source(disk_with_logical(300));
  const PartitionTable table = world.run(read_partitions(source));
  ASSERT_EQ(table.warnings.size(), 1u);
  EXPECT_EQ(table.warnings[0], "the chain of logical partitions is too long");
  EXPECT_LT(source.reads, 300u);
}

TEST(Partitions, AnyByteMayBeWrong) {
  World world;
  const std::vector<std::byte> good = disk_with_logical(3);
  for (const size_t base : {size_t{446}, size_t{1024 * 512 + 446}, size_t{1040 * 512 + 446}}) {
    for (size_t at = base; at < base + 66; ++at) {
      for (const int value : {0, 1, 5, 0x7f, 0x80, 0xee, 0xff}) {
        Memory source(good);
        source.bytes_[at] = static_cast<std::byte>(value);
        try {
          const PartitionTable table = world.run(read_partitions(source));
          for (const Partition& partition : table.partitions) {
            EXPECT_GT(partition.length, 0u);
            EXPECT_LE(partition.length, source.length() - partition.offset);
          }
        } catch (const Error&) {
        }
        EXPECT_LT(source.reads, 600u);
      }
    }
  }
}

TEST(Partitions, DisksWithoutATable) {
  World world;
  for (const size_t size : {0, 1, 511, 512, 513, 4096}) {
    Memory source(std::vector<std::byte>(size, std::byte{0xff}));
    EXPECT_EQ(testing_support::error_of([&] { world.run(read_partitions(source)); }),
              "No partition table was found");
  }
}

}  // namespace
}  // namespace cairn
