// Chunks that are decoded as a whole: once however many ask, ahead of who reads alone, within
// bounds.
#include "block/chunked_node.h"

#include <array>
#include <chrono>
#include <cstring>
#include <thread>

#include "async/async.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

constexpr uint64_t kChunk = 64 << 10;
constexpr uint64_t kChunks = 2000;
constexpr uint64_t kBad = 701;

// Chunk N is full of bytes N; it counts how often each is decoded.
class Counting : public ChunkedNode {
 public:
  Counting(Context& context, NodePtr file)
      : ChunkedNode(context, *context.registry().find("cloop"), std::move(file)) {
    set_length(kChunk * kChunks);
  }
  unsigned decoded(uint64_t number) const { return times_[number]; }
  unsigned decoded_from(uint64_t number) const {
    unsigned sum = 0;
    for (uint64_t i = number; i < kChunks; ++i) sum += times_[i];
    return sum;
  }

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override {
    Mapping mapping;
    mapping.kind = Mapping::Kind::kEncoded;
    mapping.token = offset / kChunk;
    mapping.length = std::min(length, kChunk - offset % kChunk);
    co_return mapping;
  }
  Task<EncodedChunk> chunk(uint64_t number) override {
    EncodedChunk chunk;
    if (number >= kChunks) co_return chunk;
    chunk.offset = number * kChunk;
    chunk.bytes = kChunk;
    chunk.token = number;
    co_return chunk;
  }
  void decode(const EncodedChunk& chunk, ByteSpan, MutableByteSpan out) const override {
    ++times_[chunk.token];
    if (chunk.token == kBad)
      throw Error(ErrorKind::kCorrupt, "Input/output error").hint("It is bad.");
    std::memset(out.data(), static_cast<int>(chunk.token & 0xff), out.size());
  }
  std::string name_of(uint64_t number) const override { return "piece " + std::to_string(number); }

 private:
  mutable std::array<std::atomic<unsigned>, kChunks> times_{};
};

class Chunked : public testing::Test {
 protected:
  Chunked() {
    const std::string path = folder_.file("empty");
    std::ofstream(path).put('x');
    node_ = std::make_shared<Counting>(world_.context, world_.open(path, "file", false));
  }
  ~Chunked() override { close(); }
  void close() {
    if (node_) world_.run(node_->close());
    node_.reset();
  }
  void expect_read(uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(length);
    world_.run(node_->read(offset, bytes));
    for (uint64_t i = 0; i < length; ++i)
      ASSERT_EQ(bytes[i], static_cast<std::byte>((offset + i) / kChunk & 0xff)) << offset + i;
  }

  World world_;
  Folder folder_;
  std::shared_ptr<Counting> node_;
};

Task<void> read_part(Node& node, uint64_t offset) {
  std::vector<std::byte> bytes(1000);
  co_await node.read(offset, bytes);
  if (bytes[0] != std::byte{5} || bytes[999] != std::byte{5}) throw Error::system(EIO);
}

Task<void> read_together(Context& context, Node& node) {
  TaskGroup group;
  for (unsigned i = 0; i < 40; ++i)
    group.spawn_on(context.runtime().worker(i % 2), read_part(node, 5 * kChunk + i * 1000));
  co_await group.join();
}

TEST_F(Chunked, ManyAskAndOneDecodes) {
  world_.run(read_together(world_.context, *node_));
  EXPECT_EQ(node_->decoded(5), 1u);
}

TEST_F(Chunked, WholeChunksAreDecodedIntoTheRequest) {
  expect_read(10 * kChunk, 3 * kChunk);
  expect_read(10 * kChunk, 3 * kChunk);
  EXPECT_EQ(node_->decoded(10), 2u);
  // Parts go by the cache, and whole ones take what is there.
  expect_read(20 * kChunk + 1, kChunk - 1);
  expect_read(20 * kChunk, kChunk);
  EXPECT_EQ(node_->decoded(20), 1u);
}

TEST_F(Chunked, AheadOfWhoReadsAlone) {
  for (uint64_t at = 0; at < 100 * kChunk; at += kChunk / 4) expect_read(at, kChunk / 4);
  const std::shared_ptr<Counting> kept = node_;
  // The reader may be faster than what works ahead of it.
  for (int i = 0; i < 10'000 && kept->decoded_from(100) == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  close();  // which waits for what is on its way
  for (uint64_t number = 0; number < 100; ++number) EXPECT_EQ(kept->decoded(number), 1u) << number;
  EXPECT_GE(kept->decoded_from(100), 1u);
  EXPECT_LE(kept->decoded_from(100), ChunkCache{}.ahead);
}

TEST_F(Chunked, NotAheadOfWhoJumps) {
  for (uint64_t i = 0; i < 100; ++i) expect_read((i * 37 % 100) * 3 * kChunk, 100);
  const std::shared_ptr<Counting> kept = node_;
  close();
  EXPECT_EQ(kept->decoded_from(0), 100u);
}

TEST_F(Chunked, TheCacheIsBounded) {
  const uint64_t fits = ChunkCache{}.bytes / kChunk;
  for (uint64_t number = 0; number < fits + 10; ++number) expect_read(number * 2 * kChunk, 10);
  expect_read((fits + 9) * 2 * kChunk, 10);
  EXPECT_EQ(node_->decoded((fits + 9) * 2), 1u);
  expect_read(0, 10);
  EXPECT_EQ(node_->decoded(0), 2u);
}

TEST_F(Chunked, DamageIsToldToWhoReadsIt) {
  for (uint64_t at = (kBad - 20) * kChunk; at < kBad * kChunk; at += kChunk / 2)
    expect_read(at, kChunk / 2);
  std::vector<std::byte> bytes(10);
  try {
    world_.run(node_->read(kBad * kChunk + 5, bytes));
    FAIL() << "the chunk is bad";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "Input/output error");
    ASSERT_EQ(error.hints().size(), 1u);
    EXPECT_NE(error.hints()[0].text.find("piece 701, at byte 45940736 of the disk: It is bad."),
              std::string::npos);
  }
  expect_read((kBad + 1) * kChunk, kChunk);
}

}  // namespace
}  // namespace cairn
