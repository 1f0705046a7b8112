// Every format that is written goes through the same list of operations, against a model in memory.
#include <cstring>

#include "async/async.h"
#include "block/capabilities/checkable.h"
#include "layouts.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

class Conformance : public testing::TestWithParam<Layout> {
 protected:
  Conformance() { world_.add_secret("s0", "passphrase"); }
  void open(bool writable = true) {
    node_ = world_.open(path_, GetParam().format, writable, GetParam().open_options());
  }
  void reopen() {
    world_.close(node_);
    open();
  }
  void make(uint64_t size) {
    path_ = folder_.file("disk");
    world_.create(path_, GetParam().format, size, GetParam().options());
    model_.assign(size, std::byte{0});
    open();
    if (!GetParam().sample.zeroed) world_.run(node_->read(0, model_));
  }
  // What came to the disk when it grew from FROM on: whatever is there, where zeroes are not
  // promised.
  void learn(uint64_t from) {
    if (!GetParam().sample.zeroed && from < model_.size())
      world_.run(node_->read(from, MutableByteSpan(model_).subspan(from)));
  }
  void expect_equal() {
    std::vector<std::byte> content(model_.size());
    world_.run(node_->read(0, content));
    for (size_t at = 0; at < content.size(); ++at)
      ASSERT_EQ(content[at], model_[at]) << "at byte " << at;
  }
  void expect_clean() {
    if (!GetParam().check) return;
    world_.close(node_);
    open(false);
    std::string findings;
    CheckRequest request;
    request.report = [&](std::string_view line) { findings += std::string(line) + "\n"; };
    const CheckResult result = world_.run(check_image(*node_, request));
    EXPECT_EQ(result.corruptions, 0u) << findings;
    EXPECT_EQ(result.leaks, 0u) << findings;
    EXPECT_EQ(result.check_errors, 0u);
    world_.close(node_);
    open();
  }
  // The extents cover the disk without gaps, and what they call zero is zero.
  void expect_true_extents() {
    for (uint64_t at = 0; at < node_->length();) {
      const Extent extent = world_.run(node_->extent_at(at, node_->length() - at));
      ASSERT_GT(extent.length, 0u);
      ASSERT_LE(extent.length, node_->length() - at);
      for (uint64_t i = at; extent.zero && i < at + extent.length; ++i)
        ASSERT_EQ(model_[i], std::byte{0}) << i;
      at += extent.length;
    }
  }

  World world_;
  Folder folder_;
  std::string path_;
  NodePtr node_;
  std::vector<std::byte> model_;
};

TEST_P(Conformance, FreshDiskIsZero) {
  make(3 << 20);
  expect_equal();
  expect_true_extents();
  expect_clean();
  world_.close(node_);
}

TEST_P(Conformance, RandomOperationsMatchTheModel) {
  std::mt19937_64 random(20260101);
  make((5 << 20) + 512 * 3);
  for (int step = 0; step < 300; ++step) {
    const uint64_t longest = step % 10 == 0 ? 700'000 : 20'000;
    const uint64_t length = 1 + random() % longest;
    const uint64_t offset = random() % (model_.size() - length);
    switch (random() % 10) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4: {
        const auto bytes = random_bytes(random, length);
        world_.run(node_->write(offset, bytes));
        std::memcpy(model_.data() + offset, bytes.data(), length);
        break;
      }
      case 5:
      case 6: {
        const WriteFlags flags{.may_unmap = random() % 2 == 0};
        world_.run(node_->write_zeroes(offset, length, flags));
        std::memset(model_.data() + offset, 0, length);
        break;
      }
      case 7: {
        std::vector<std::byte> bytes(length);
        world_.run(node_->read(offset, bytes));
        ASSERT_EQ(std::memcmp(bytes.data(), model_.data() + offset, length), 0) << "step " << step;
        break;
      }
      case 8:
        world_.run(node_->flush());
        break;
      case 9:
        if (random() % 3 == 0) reopen();
        break;
    }
  }
  expect_equal();
  expect_true_extents();
  expect_clean();
  expect_equal();
  world_.close(node_);
}

TEST_P(Conformance, DiscardedRangesAreZeroOrUnchanged) {
  std::mt19937_64 random(7);
  make(4 << 20);
  const auto bytes = random_bytes(random, model_.size());
  world_.run(node_->write(0, bytes));
  model_ = bytes;
  world_.run(node_->discard(100'000, 2'000'000));
  std::vector<std::byte> content(model_.size());
  world_.run(node_->read(0, content));
  for (size_t at = 0; at < content.size(); ++at) {
    const bool inside = at >= 100'000 && at < 2'100'000;
    ASSERT_TRUE(content[at] == model_[at] || (inside && content[at] == std::byte{0})) << at;
  }
  // What was freed is used again without harm.
  world_.run(node_->write(100'000, ByteSpan(bytes).first(2'000'000)));
  std::memcpy(content.data() + 100'000, bytes.data(), 2'000'000);
  model_ = content;
  expect_equal();
  expect_clean();
  world_.close(node_);
}

TEST_P(Conformance, GrowsAndShrinks) {
  std::mt19937_64 random(11);
  make(1 << 20);
  if (!GetParam().resize) {
    EXPECT_THROW(world_.run(node_->resize({.length = 2 << 20})), Error);
    world_.close(node_);
    return;
  }
  const auto bytes = random_bytes(random, model_.size());
  world_.run(node_->write(0, bytes));
  model_ = bytes;
  for (const uint64_t length : {uint64_t{9} << 20, uint64_t{3} << 19, uint64_t{6} << 20}) {
    const uint64_t before = model_.size();
    if (length < before && !GetParam().sample.shrinks) {
      EXPECT_THROW(world_.run(node_->resize({.length = length})), Error);
      continue;
    }
    world_.run(node_->resize({.length = length}));
    model_.resize(length, std::byte{0});
    learn(before);
    ASSERT_EQ(node_->length(), length);
    expect_equal();
    world_.run(node_->write(length - 70'000, ByteSpan(bytes).first(70'000)));
    std::memcpy(model_.data() + length - 70'000, bytes.data(), 70'000);
    reopen();
    expect_equal();
    expect_clean();
  }
  world_.close(node_);
}

Task<void> writer(Node& node, std::vector<std::byte>& model, unsigned seed, unsigned count) {
  std::mt19937_64 random(seed);
  // Each writer owns the 1000-byte cells of its number: neighbours share clusters, never bytes.
  for (int i = 0; i < 60; ++i) {
    const uint64_t cell = (random() % (model.size() / 1000 / count)) * count + seed;
    const uint64_t length = 1 + random() % 1000;
    const auto bytes = random_bytes(random, length);
    if (random() % 4 == 0) {
      co_await node.write_zeroes(cell * 1000, length);
      std::memset(model.data() + cell * 1000, 0, length);
    } else {
      co_await node.write(cell * 1000, bytes);
      std::memcpy(model.data() + cell * 1000, bytes.data(), length);
    }
  }
}

TEST_P(Conformance, WritersOnTwoWorkersDoNotDisturbEachOther) {
  make(4 << 20);
  const auto all = [&]() -> Task<void> {
    TaskGroup group;
    for (unsigned i = 0; i < 16; ++i)
      group.spawn_on(world_.context.runtime().worker(i % 2), writer(*node_, model_, i, 16));
    co_await group.join();
  };
  world_.run(all());
  expect_equal();
  reopen();
  expect_equal();
  expect_clean();
  world_.close(node_);
}

TEST_P(Conformance, RequestsOutsideOfTheDiskAreRefused) {
  make(1 << 20);
  std::vector<std::byte> bytes(1024);
  EXPECT_THROW(world_.run(node_->read((1 << 20) - 512, bytes)), Error);
  EXPECT_THROW(world_.run(node_->write((1 << 20) - 512, bytes)), Error);
  EXPECT_THROW(world_.run(node_->write(UINT64_MAX - 100, bytes)), Error);
  EXPECT_THROW(world_.run(node_->write_zeroes(1 << 20, 1)), Error);
  world_.close(node_);
  open(false);
  EXPECT_THROW(world_.run(node_->write(0, bytes)), Error);
  world_.close(node_);
}

INSTANTIATE_TEST_SUITE_P(Formats, Conformance, testing::ValuesIn(layouts([](const Sample& sample) {
                           return sample.rewrites;
                         })),
                         [](const auto& chosen) { return chosen.param.name; });

}  // namespace
}  // namespace cairn
