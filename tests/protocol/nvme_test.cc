// What crosses the bus to an NVMe controller, the queues, and disks of a controller in memory that
// does what real and broken ones do.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "async/task_group.h"
#include "base/buffer.h"
#include "block/block.h"
#include "fake_nvme.h"
#include "protocol/nvme/address.h"
#include "protocol/nvme/node.h"
#include "protocol/nvme/pci.h"
#include "protocol/nvme/prp.h"
#include "support.h"

namespace cairn::nvme {
namespace {

using testing_support::error_of;
using testing_support::random_bytes;
using testing_support::World;

// --- pure ---

TEST(NvmeLayout, Capabilities) {
  // Of QEMU's device.
  const auto seen = nvme::Capabilities::decode(0x004008200f0107ff, 4096);
  EXPECT_EQ(seen.most_entries, 2048U);
  EXPECT_EQ(seen.timeout.count(), 7500);
  EXPECT_EQ(seen.doorbell_bytes, 4U);
  EXPECT_EQ(seen.page_bytes, 4096U);
  EXPECT_EQ(enabled_configuration(4096), 0x00460001U);
  EXPECT_EQ(enabled_configuration(16384), 0x00460101U);
  EXPECT_THROW(nvme::Capabilities::decode(UINT64_MAX, 4096), Error);          // gone
  EXPECT_THROW(nvme::Capabilities::decode(0x000000000f0107ff, 4096), Error);  // no NVM commands
  EXPECT_THROW(nvme::Capabilities::decode(0x000000200f010000, 4096), Error);  // queues of one
  EXPECT_THROW(nvme::Capabilities::decode(0x000100200f0107ff, 4096), Error);  // pages of 8 KiB
  EXPECT_EQ(nvme::Capabilities::decode(0x0000002000010001, 4096).timeout.count(), 500);
}

TEST(NvmeLayout, Commands) {
  std::byte bytes[kCommandBytes];
  const auto word = [&](size_t at) { return load_le<uint32_t>(ByteSpan(bytes), at); };
  Command command = on_blocks(Opcode::kWrite, 7, 0x123456789a, 65536, {.fua = true});
  command.prp1 = 0x1111222233334444;
  command.prp2 = 0x5555666677778888;
  command.encode(bytes, 0xabcd);
  EXPECT_EQ(word(0), 0xabcd0001U);
  EXPECT_EQ(word(4), 7U);
  EXPECT_EQ(load_le<uint64_t>(ByteSpan(bytes), 24), command.prp1);
  EXPECT_EQ(load_le<uint64_t>(ByteSpan(bytes), 32), command.prp2);
  EXPECT_EQ(word(40), 0x3456789aU);
  EXPECT_EQ(word(44), 0x12U);
  EXPECT_EQ(word(48), 0x4000ffffU);
  on_blocks(Opcode::kWriteZeroes, 1, 0, 1, {.deallocate = true}).encode(bytes, 0);
  EXPECT_EQ(word(48), 1U << 25);
  create_completions(3, 128, 0x10000, 5).encode(bytes, 0);
  EXPECT_EQ(word(0), 5U);
  EXPECT_EQ(word(40), 0x007f0003U);
  EXPECT_EQ(word(44), 0x00050003U);
  create_completions(3, 128, 0x10000, std::nullopt).encode(bytes, 0);
  EXPECT_EQ(word(44), 1U);
  create_submissions(3, 128, 0x10000).encode(bytes, 0);
  EXPECT_EQ(word(44), 0x00030001U);
  ask_for_queues(4).encode(bytes, 0);
  EXPECT_EQ(word(40), 7U);
  EXPECT_EQ(word(44), 0x00030003U);
  EXPECT_EQ(granted_queues(0x0002003f), 3U);
  deallocate_command(1, 256, 0x2000).encode(bytes, 0);
  EXPECT_EQ(word(40), 255U);
  EXPECT_EQ(word(44), 4U);
}

TEST(NvmeLayout, Completions) {
  std::byte bytes[kCompletionBytes] = {};
  const MutableByteSpan out(bytes);
  store_le<uint32_t>(out, 0, 99);
  store_le<uint16_t>(out, 8, 3);
  store_le<uint16_t>(out, 10, 1);
  store_le<uint16_t>(out, 12, 44);
  store_le<uint16_t>(out, 14, 0x8000 | 2 << 9 | 0x81 << 1 | 1);
  const Completion seen = Completion::decode(bytes);
  EXPECT_EQ(seen.result, 99U);
  EXPECT_EQ(seen.submissions_head, 3);
  EXPECT_EQ(seen.queue, 1);
  EXPECT_EQ(seen.command, 44);
  EXPECT_TRUE(seen.phase);
  EXPECT_FALSE(seen.status.ok());
  EXPECT_EQ(seen.status.text(), "the medium could not be read (status 2/0x81)");
  EXPECT_FALSE(seen.status.passing());
  EXPECT_THROW(Completion::decode(ByteSpan(bytes).first(15)), Error);
  EXPECT_TRUE((Status{.code = 0x82}).passing());
  EXPECT_TRUE((Status{.type = 3, .code = 1}).passing());
  EXPECT_FALSE((Status{.code = 0x82, .do_not_retry = true}).passing());
  EXPECT_EQ((Status{.code = 0x20}).kind(), ErrorKind::kDenied);
  EXPECT_EQ((Status{.code = 0x81}).kind(), ErrorKind::kNoSpace);
  EXPECT_EQ((Status{.code = 0x01}).kind(), ErrorKind::kUnsupported);
  EXPECT_EQ((Status{.type = 7, .code = 0x55}).kind(), ErrorKind::kIo);
}

std::vector<std::byte> namespace_bytes(uint64_t blocks, uint32_t format) {
  std::vector<std::byte> bytes(kIdentifyBytes);
  store_le<uint64_t>(MutableByteSpan(bytes), 0, blocks);
  store_le<uint32_t>(MutableByteSpan(bytes), 128, format);
  return bytes;
}

TEST(NvmeLayout, Namespaces) {
  const auto decode = [](const std::vector<std::byte>& bytes) {
    return NamespaceIdentity::decode(bytes, 4096);
  };
  EXPECT_EQ(decode(namespace_bytes(100, 9 << 16)).length(), 51200U);
  EXPECT_EQ(decode(namespace_bytes(100, 12 << 16)).block_bytes, 4096U);
  const auto refused = [&](uint64_t blocks, uint32_t format, std::string_view why) {
    EXPECT_NE(error_of([&] { decode(namespace_bytes(blocks, format)); }).find(why),
              std::string::npos)
        << why;
  };
  refused(0, 9 << 16, "Invalid namespace");
  refused(100, 9 << 16 | 8, "metadata");
  refused(100, 8 << 16, "2^8");
  refused(100, 13 << 16, "2^13");
  refused(100, 255 << 16, "2^255");
  refused(uint64_t{1} << 55, 9 << 16, "too large");
  refused(UINT64_MAX, 12 << 16, "too large");
  // A format beyond those that there are.
  std::vector<std::byte> bytes = namespace_bytes(100, 9 << 16);
  store_le<uint8_t>(MutableByteSpan(bytes), 26, 1);
  EXPECT_THROW(decode(bytes), Error);
  // The upper bits of the index count where there are more than 16 formats.
  store_le<uint8_t>(MutableByteSpan(bytes), 25, 40);
  store_le<uint8_t>(MutableByteSpan(bytes), 26, 0x41);
  store_le<uint32_t>(MutableByteSpan(bytes), 128 + 4 * 33, 12 << 16);
  EXPECT_EQ(decode(bytes).block_bytes, 4096U);
  EXPECT_THROW(NamespaceIdentity::decode(ByteSpan(bytes).first(100), 4096), Error);
}

TEST(NvmeLayout, Controllers) {
  std::vector<std::byte> bytes(kIdentifyBytes);
  const MutableByteSpan out(bytes);
  store_text(out, 4, "deadbeef            ");
  store_text(out, 24, "Model\x01 X   ");
  store_le<uint8_t>(out, 77, 7);
  store_le<uint8_t>(out, 512, 0x66);
  store_le<uint8_t>(out, 513, 0x44);
  store_le<uint32_t>(out, 516, 256);
  store_le<uint16_t>(out, 520, 0x4);
  const auto seen = ControllerIdentity::decode(bytes, 4096);
  EXPECT_EQ(seen.serial, "deadbeef");
  EXPECT_EQ(seen.model, "Model? X");
  EXPECT_EQ(seen.most_bytes, 512U << 10);
  EXPECT_TRUE(seen.deallocates);
  EXPECT_FALSE(seen.write_zeroes);
  EXPECT_FALSE(seen.volatile_cache);
  for (const unsigned shift : {0, 31, 255}) {
    store_le<uint8_t>(out, 77, static_cast<uint8_t>(shift));
    EXPECT_EQ(ControllerIdentity::decode(bytes, 4096).most_bytes, 0U) << shift;
  }
  store_le<uint8_t>(out, 512, 0x67);
  EXPECT_THROW(ControllerIdentity::decode(bytes, 4096), Error);
}

TEST(NvmePrp, Lists) {
  std::vector<std::byte> page(4096);
  const auto make = [&](uint64_t iova, uint64_t length) {
    return make_prps(iova, length, 4096, 0x9000, page);
  };
  const auto entry = [&](size_t i) { return load_le<uint64_t>(ByteSpan(page), i * 8); };
  EXPECT_EQ(make(0x10200, 512).second, 0U);
  EXPECT_EQ(make(0x10000, 4096).second, 0U);
  EXPECT_EQ(make(0x10200, 4096).second, 0x11000U);
  EXPECT_EQ(make(0x10000, 8192).second, 0x11000U);
  EXPECT_EQ(make(0x10200, 8192).second, 0x9000U);
  EXPECT_EQ(entry(0), 0x11000U);
  EXPECT_EQ(entry(1), 0x12000U);
  const Prps longest = make(0x10ffc, 2 << 20);
  EXPECT_EQ(longest.first, 0x10ffcU);
  EXPECT_EQ(entry(511), 0x11000U + 511 * 4096);
  EXPECT_THROW(make(0x10002, 512), Error);
  EXPECT_THROW(make(0x10000, (2 << 20) + 4), Error);
  EXPECT_THROW(make(UINT64_MAX - 3, 4096), Error);
}

TEST(NvmeAddress, NamesAreChecked) {
  EXPECT_EQ(PciAddress::parse("0000:06:0D.0").text(), "0000:06:0d.0");
  EXPECT_EQ(PciAddress::parse("06:0d.7").text(), "0000:06:0d.7");
  for (const char* bad : {"", "06:0d", "06:0d.8", "0000:06:0d.00", "../..:06:0d.0", "0000:06:0d.0/",
                          "000g:06:0d.0", "0000:06:0d,0"})
    EXPECT_THROW(PciAddress::parse(bad), Error) << bad;
  EXPECT_EQ(parse_namespace("12"), 12U);
  for (const char* bad : {"", "0", "-1", "x", "1x", " 1", "4294967295", "99999999999"})
    EXPECT_EQ(error_of([&] { parse_namespace(bad); }),
              std::string("Invalid namespace '") + bad + "', positive number expected");
}

TEST(NvmeDma, Addresses) {
  AddressSpace space({{0, 0xffff}, {0x20000, 0x2ffff}, {0x30000 + 0x10, UINT64_MAX}});
  using End = AddressSpace::End;
  EXPECT_EQ(space.take(0x8000, 0x1000, End::kLow), 0x20000U);  // never the lowest addresses
  EXPECT_EQ(space.take(0x8000, 0x1000, End::kLow), 0x28000U);
  EXPECT_EQ(space.take(0x1000, 0x1000, End::kLow), 0x31000U);
  const uint64_t high = space.take(0x1000, 0x1000, End::kHigh);
  EXPECT_EQ(high, UINT64_MAX - 0x1fff);
  space.give_back(0x20000, 0x8000);
  space.give_back(0x28000, 0x8000);
  EXPECT_EQ(space.take(0x10000, 0x1000, End::kLow), 0x20000U);
  AddressSpace small({{0x10000, 0x11fff}});
  const uint64_t one = small.take(0x1000, 0x1000, End::kHigh);
  small.take(0x1000, 0x1000, End::kHigh);
  EXPECT_THROW(small.take(0x1000, 0x1000, End::kLow), Error);
  small.give_back(one, 0x1000);
  EXPECT_EQ(small.take(0x1000, 0x1000, End::kLow), one);
}

// --- the controller ---

// Open for writing without the driver, which would look for a real device; what the request layer
// would call is called directly.
class TestNode : public NvmeNode {
 public:
  TestNode(Context& context, std::unique_ptr<Device> device, Controller::Settings settings)
      : NvmeNode(context, *context.registry().find("nvme"), std::move(device), std::move(settings),
                 1, "nvme://x/1") {}
  void make_writable() { set_read_only(false); }
  using NvmeNode::do_discard;
  using NvmeNode::do_read;
  using NvmeNode::do_write;
  using NvmeNode::do_write_zeroes;
};

struct Disk {
  explicit Disk(World& w, FakeSettings settings = {}, int timeout_ms = 60'000,
                const CancelSource* cancel = nullptr)
      : world(w), state(std::make_shared<FakeState>()) {
    Controller::Settings how;
    how.timeout = std::chrono::milliseconds(timeout_ms);
    how.cancel = cancel;
    how.warn = [this](const std::string& line) {
      const std::lock_guard lock(state->mutex);
      warnings.push_back(line);
    };
    node = std::make_shared<TestNode>(
        w.context, std::make_unique<FakeDevice>(std::move(settings), state), std::move(how));
  }
  void open() {
    world.run(node->connect());
    node->make_writable();
  }
  std::vector<std::byte> read(uint64_t offset, size_t length) {
    std::vector<std::byte> bytes(length);
    world.run(node->read(offset, bytes));
    return bytes;
  }
  void write(uint64_t offset, ByteSpan bytes, WriteFlags flags = {}) {
    world.run(node->write(offset, bytes, flags));
  }
  void close() {
    world.run(node->close());
    EXPECT_TRUE(state->closed);
  }
  // Where the last flush cannot be done any more.
  void close_failed() {
    EXPECT_THROW(world.run(node->close()), Error);
    EXPECT_TRUE(state->closed);
  }
  size_t commands(Opcode opcode) const {
    return static_cast<size_t>(std::count_if(
        state->commands.begin(), state->commands.end(),
        [&](const Command& one) { return one.opcode == static_cast<uint8_t>(opcode); }));
  }

  World& world;
  std::shared_ptr<FakeState> state;
  std::vector<std::string> warnings;
  std::shared_ptr<TestNode> node;
};

class NvmeDisk : public ::testing::Test {
 protected:
  World world{3};
  std::mt19937_64 random{7};
};

TEST_F(NvmeDisk, ReadsAndWritesWhatItShould) {
  for (const unsigned shift : {9U, 12U}) {
    Disk disk(world, {.blocks = uint64_t{8 << 20} >> shift, .block_shift = shift});
    disk.open();
    EXPECT_EQ(disk.node->length(), 8U << 20);
    std::vector<std::byte> model(8 << 20);
    for (int i = 0; i < 300; ++i) {
      const uint64_t unit = i % 3 == 0 ? 1 : 512;
      const uint64_t length = (1 + random() % (i % 5 == 0 ? (2 << 20) / unit : 8000 / unit)) * unit;
      const uint64_t offset = random() % (((8 << 20) - length) / unit) * unit;
      // Anywhere in memory.
      std::vector<std::byte> bytes = random_bytes(random, length + 5);
      const auto in = MutableByteSpan(bytes).subspan(random() % 5, length);
      if (random() % 2 == 0) {
        disk.write(offset, in);
        std::copy(in.begin(), in.end(), model.begin() + static_cast<ptrdiff_t>(offset));
      } else {
        world.run(disk.node->read(offset, in));
        ASSERT_EQ(std::memcmp(in.data(), model.data() + offset, length), 0);
      }
    }
    EXPECT_EQ(disk.state->disk, model);
    disk.close();
    EXPECT_TRUE(disk.state->shut_down);
    EXPECT_EQ(disk.state->resets, 1U);  // at the end
  }
}

TEST_F(NvmeDisk, LongRequestsAreMappedAndSplit) {
  Disk disk(world);
  disk.open();
  AlignedBuffer buffer(1 << 20);
  const auto bytes = random_bytes(random, 1 << 20);
  std::memcpy(buffer.data(), bytes.data(), bytes.size());
  const size_t before = disk.state->mappings;
  disk.write(4096, buffer.span());
  EXPECT_EQ(disk.state->mappings, before + 1);
  EXPECT_EQ(disk.commands(Opcode::kWrite), 8U);  // of 128 KiB
  EXPECT_EQ(std::memcmp(disk.state->disk.data() + 4096, bytes.data(), bytes.size()), 0);
  const size_t mapped = disk.state->mapped;
  EXPECT_EQ(disk.read(4096, 1 << 20), bytes);
  EXPECT_EQ(disk.state->mapped, mapped);
  disk.close();
}

TEST_F(NvmeDisk, WithoutMemoryToLockDataIsCopied) {
  // What opening takes, and nothing more.
  Disk disk(world, {.most_mapped = 3 << 20});
  disk.open();
  const auto bytes = random_bytes(random, 4 << 20);
  disk.write(0, bytes);
  EXPECT_EQ(disk.read(0, 4 << 20), bytes);
  EXPECT_LE(disk.state->most_mapped, 3U << 20);
  disk.close();
  Disk poor(world, {.most_mapped = 1 << 20});
  try {
    poor.open();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNoMemory);
    ASSERT_EQ(error.hints().size(), 1U);
    EXPECT_NE(error.hints()[0].text.find("ulimit -l 16384"), std::string::npos);
  }
  poor.close();
}

TEST_F(NvmeDisk, FlagsReachTheController) {
  Disk disk(world);
  disk.open();
  const auto bytes = random_bytes(random, 4096);
  disk.write(0, bytes, {.fua = true});
  disk.write(0, bytes);
  world.run(disk.node->flush());
  world.run(disk.node->do_write_zeroes(0, 4096, {.fua = true, .may_unmap = true}));
  world.run(disk.node->do_write_zeroes(0, 4096, {}));
  const auto& all = disk.state->commands;
  ASSERT_EQ(all.size(), 5U);
  EXPECT_EQ(all[0].words[2], 1U << 30 | 7);
  EXPECT_EQ(all[1].words[2], 7U);
  EXPECT_EQ(all[2].opcode, 0);
  EXPECT_EQ(all[3].words[2], 1U << 30 | 1U << 25 | 7);
  EXPECT_EQ(all[4].words[2], 7U);
  disk.close();
}

TEST_F(NvmeDisk, ZeroesAndDiscardsOfAnyLength) {
  Disk disk(world, {.blocks = 200'000});
  disk.open();
  std::fill(disk.state->disk.begin(), disk.state->disk.end(), std::byte{1});
  world.run(disk.node->do_write_zeroes(512, 150'000 * 512, {}));
  EXPECT_EQ(disk.commands(Opcode::kWriteZeroes), 3U);  // of 65536 blocks at most
  EXPECT_EQ(disk.state->disk[511], std::byte{1});
  EXPECT_TRUE(is_zero(ByteSpan(disk.state->disk).subspan(512, 150'000 * 512)));
  EXPECT_EQ(disk.state->disk[150'001 * 512], std::byte{1});
  world.run(disk.node->do_discard(160'000 * 512, 40'000 * 512));
  EXPECT_EQ(disk.commands(Opcode::kDatasetManagement), 1U);
  EXPECT_TRUE(is_zero(ByteSpan(disk.state->disk).subspan(160'000 * 512)));
  disk.close();
  Disk plain(world, {.optional_commands = 0});
  plain.open();
  EXPECT_THROW(world.run(plain.node->do_write_zeroes(0, 512, {})), Error);
  world.run(plain.node->write_zeroes(0, 512));  // as data
  world.run(plain.node->do_discard(0, 512));
  EXPECT_EQ(plain.commands(Opcode::kDatasetManagement), 0U);
  EXPECT_EQ(plain.commands(Opcode::kWrite), 1U);
  plain.close();
}

Task<void> read_many(Node& node, unsigned count) {
  std::vector<std::byte> bytes(4096);
  for (unsigned i = 0; i < count; ++i) co_await node.read(i % 64 * 4096, bytes);
}

TEST_F(NvmeDisk, EachWorkerHasItsQueuesWhichWrap) {
  Disk disk(world, {.most_entries = 8});
  disk.open();
  Task<void> work = [](World& all, Disk& one) -> Task<void> {
    TaskGroup group;
    for (unsigned i = 0; i < 60; ++i)
      group.spawn_on(all.context.runtime().worker(i % 3), read_many(*one.node, 20));
    co_await group.join();
  }(world, disk);
  world.run(std::move(work));
  EXPECT_EQ(disk.commands(Opcode::kRead), 1200U);
  EXPECT_EQ(disk.state->queues_made, 3U);
  disk.close();
  EXPECT_TRUE(disk.state->shut_down);
}

TEST_F(NvmeDisk, WithFewQueuesOrInterruptsWorkersShare) {
  for (const unsigned vectors : {0U, 1U, 2U, 9U}) {
    Disk disk(world, {.most_queues = vectors == 9 ? 1U : 3U, .vectors = vectors});
    disk.open();
    Task<void> work = [](World& all, Disk& one) -> Task<void> {
      TaskGroup group;
      for (unsigned i = 0; i < 6; ++i)
        group.spawn_on(all.context.runtime().worker(i % 3), read_many(*one.node, 5));
      co_await group.join();
    }(world, disk);
    world.run(std::move(work));
    EXPECT_EQ(disk.commands(Opcode::kRead), 30U);
    disk.close();
  }
}

TEST_F(NvmeDisk, LostInterruptsDelayAndNothingMore) {
  Disk disk(world, {.lose_interrupts = true});
  disk.open();
  const auto bytes = random_bytes(random, 1 << 20);
  disk.write(0, bytes);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(disk.read(0, 1 << 20), bytes);
  EXPECT_EQ(disk.state->resets, 0U);
  disk.close();
}

TEST_F(NvmeDisk, StatusesBecomeErrors) {
  Disk disk(world, {.status = [](uint8_t, unsigned n) -> uint16_t {
              if (n == 0) return 0x281;          // the medium
              if (n == 1) return 0x4000 | 0x82;  // not ready, and never
              if (n <= 4) return 0x82;           // not ready, three times
              if (n == 6) return 0x20;
              return 0;
            }});
  disk.open();
  const auto kind_of_read = [&] {
    try {
      disk.read(0, 512);
    } catch (const Error& error) {
      return std::pair(error.kind(), error.message());
    }
    return std::pair(ErrorKind::kForked, std::string());
  };
  EXPECT_EQ(kind_of_read().second, "the medium could not be read (status 2/0x81)");
  EXPECT_EQ(kind_of_read().second, "the namespace is not ready (status 0/0x82)");
  EXPECT_EQ(disk.state->commands.size(), 2U);
  disk.read(0, 512);  // the fourth time it is
  EXPECT_EQ(disk.state->commands.size(), 6U);
  EXPECT_EQ(kind_of_read().first, ErrorKind::kDenied);
  disk.close();
}

TEST_F(NvmeDisk, WhatIsNotAnsweredIsSentAgainAfterAReset) {
  Disk disk(
      world,
      {.status = [](uint8_t, unsigned n) { return n < 2 ? FakeSettings::kSilent : uint16_t{}; }},
      200);
  disk.open();
  const auto bytes = random_bytes(random, 256 << 10);  // two commands, of which none is answered
  disk.write(0, bytes);
  EXPECT_EQ(std::memcmp(disk.state->disk.data(), bytes.data(), bytes.size()), 0);
  EXPECT_EQ(disk.state->resets, 1U);
  ASSERT_EQ(disk.warnings.size(), 1U);
  EXPECT_EQ(disk.warnings[0], "the NVMe controller does not answer: it is reset");
  EXPECT_EQ(disk.read(0, 256 << 10), bytes);
  disk.close();
}

TEST_F(NvmeDisk, WhatIsNeverAnsweredFails) {
  Disk disk(world,
            {.status = [](uint8_t opcode,
                          unsigned) { return opcode == 2 ? FakeSettings::kSilent : uint16_t{}; }},
            100);
  disk.open();
  EXPECT_NE(error_of([&] { disk.read(0, 512); }).find("also after it was reset"),
            std::string::npos);
  disk.write(0, random_bytes(random, 512));  // the controller goes on
  disk.close();
}

TEST_F(NvmeDisk, ACancellationEndsTheWait) {
  CancelSource cancel;
  Disk disk(world,
            {.status =
                 [&cancel](uint8_t, unsigned) {
                   cancel.request();
                   return FakeSettings::kSilent;
                 }},
            3'600'000, &cancel);
  disk.open();
  EXPECT_EQ(error_of([&] { disk.read(0, 512); }), "cancelled");
  disk.close_failed();
}

TEST_F(NvmeDisk, NonsenseInACompletionIsResetAway) {
  for (const size_t at : {8U, 10U}) {
    bool spoiled = false;
    Disk disk(world, {.spoil = [&spoiled, at](MutableByteSpan entry) {
                if (!spoiled) store_le<uint16_t>(entry, at, 60000);
                spoiled = true;
              }});
    disk.open();
    disk.write(0, random_bytes(random, 512));
    EXPECT_EQ(disk.state->resets, 1U);
    disk.close();
  }
  // An answer to a command that was never sent is passed over.
  bool spoiled = false;
  Disk disk(world,
            {.spoil =
                 [&spoiled](MutableByteSpan entry) {
                   if (!spoiled) store_le<uint16_t>(entry, 12, 60000);
                   spoiled = true;
                 }},
            200);
  disk.open();
  disk.write(0, random_bytes(random, 512));
  disk.close();
}

TEST_F(NvmeDisk, AnswersWithoutEndDoNotKeepIt) {
  Disk disk(world,
            {.flood = true,
             .status = [](uint8_t opcode,
                          unsigned) { return opcode == 2 ? FakeSettings::kSilent : uint16_t{}; }},
            100);
  disk.open();
  EXPECT_NE(error_of([&] { disk.read(0, 512); }).find("also after it was reset"),
            std::string::npos);
  disk.close();
}

TEST_F(NvmeDisk, AFatalErrorIsResetAway) {
  Disk disk(world, {.status = [](uint8_t, unsigned n) {
              return n == 0 ? FakeSettings::kSilent : uint16_t{};
            }});
  disk.open();
  disk.state->fatal = true;
  disk.read(0, 512);
  EXPECT_EQ(disk.state->resets, 1U);
  EXPECT_EQ(disk.warnings,
            std::vector<std::string>{"the NVMe controller reports a fatal error: it is reset"});
  disk.close();
}

TEST_F(NvmeDisk, WhatDoesNotStopIsResetAsAFunction) {
  Disk disk(
      world,
      {.status = [](uint8_t, unsigned n) { return n == 0 ? FakeSettings::kSilent : uint16_t{}; }},
      100);
  disk.open();
  disk.state->stuck = true;
  disk.read(0, 512);
  EXPECT_EQ(disk.state->function_resets, 1U);
  disk.close();
}

TEST_F(NvmeDisk, WhatIsGoneFailsAtOnce) {
  Disk disk(world);
  disk.open();
  {
    const std::lock_guard lock(disk.state->mutex);
    disk.state->gone = true;
  }
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(error_of([&] { disk.read(0, 1 << 20); }), "the NVMe controller is gone");
  disk.close_failed();
}

TEST_F(NvmeDisk, WhatTheSystemTakesAwayIsLetGo) {
  // Commands without an answer are under way meanwhile.
  Disk disk(world, {.has_removal = true,
                    .status = [](uint8_t, unsigned) { return FakeSettings::kSilent; }});
  disk.open();
  Task<void> work = [](Disk& one) -> Task<void> {
    TaskGroup group;
    std::vector<std::byte> bytes(1 << 20);
    group.spawn(one.node->read(0, bytes));
    const uint64_t count = 1;
    EXPECT_EQ(::write(one.state->removal.get(), &count, sizeof count), 8);
    co_await group.join();
  }(disk);
  EXPECT_EQ(error_of([&] { world.run(std::move(work)); }),
            "the NVMe controller was removed from the system");
  EXPECT_EQ(error_of([&] { disk.read(0, 512); }),
            "the NVMe controller was removed from the system");
  disk.close_failed();
}

TEST_F(NvmeDisk, WhatCannotBeUsedIsRefused) {
  const auto refused = [&](FakeSettings settings, std::string_view why) {
    Disk disk(world, std::move(settings));
    EXPECT_NE(error_of([&] { disk.open(); }).find(why), std::string::npos) << why;
    disk.close();
  };
  refused({.metadata_bytes = 8}, "metadata");
  refused({.blocks = 0}, "Invalid namespace");
  refused({.ignore_enable = true}, "Timeout while waiting for device to start");
  refused({.ranges = {{0, 0x1ffff}}}, "can reach no more memory");
  Disk disk(world, {.write_protected = true});
  disk.open();
  EXPECT_EQ(error_of([&] { disk.node->check_protection(); }), "the namespace is write-protected");
  disk.close();
}

TEST_F(NvmeDisk, TheSizeIsFixed) {
  Disk disk(world);
  disk.open();
  EXPECT_EQ(error_of([&] { world.run(disk.node->resize({.length = 1024})); }),
            "Cannot resize NVMe devices");
  EXPECT_EQ(error_of([&] { world.run(disk.node->resize({.length = 1 << 30, .exact = false})); }),
            "Cannot grow NVMe devices");
  world.run(disk.node->resize({.length = 1024, .exact = false}));
  EXPECT_EQ(disk.node->length(), 8U << 20);
  disk.close();
}

}  // namespace
}  // namespace cairn::nvme
