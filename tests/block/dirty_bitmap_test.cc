// Dirty bitmaps against a model of one bool a granule, and what the request layer records.
#include "block/dirty_bitmap.h"

#include <thread>

#include "base/arith.h"
#include "block/capabilities/bitmap_store.h"
#include "block/capabilities/compressed_writer.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

class Model {
 public:
  Model(uint64_t length, uint64_t granularity)
      : length_(length), granularity_(granularity), bits_(div_ceil(length, granularity)) {}
  void set(uint64_t offset, uint64_t length, bool value) {
    const uint64_t end = std::min(offset + length, length_);
    for (uint64_t i = offset / granularity_; length != 0 && i < div_ceil(end, granularity_); ++i)
      bits_[i] = value;
  }
  void merge(const Model& other) {
    for (uint64_t i = 0; i < other.bits_.size(); ++i)
      if (other.bits_[i]) set(i * other.granularity_, other.granularity_, true);
  }
  void resize(uint64_t length) {
    length_ = length;
    bits_.resize(div_ceil(length, granularity_));
  }
  void compare(const DirtyBitmap& bitmap) const {
    ASSERT_EQ(bitmap.length(), length_);
    uint64_t at = 0;
    uint64_t dirty = 0;
    bool before = false;
    while (at < length_) {
      const DirtyBitmap::Run run = bitmap.run_at(at, UINT64_MAX);
      ASSERT_GT(run.length, 0u);
      ASSERT_TRUE(at == 0 || run.dirty != before) << "two runs of one state at " << at;
      for (uint64_t i = at / granularity_; i < div_ceil(at + run.length, granularity_); ++i)
        ASSERT_EQ(bits_[i], run.dirty) << "granule " << i;
      before = run.dirty;
      at += run.length;
    }
    for (const bool bit : bits_) dirty += bit ? granularity_ : 0;
    ASSERT_EQ(bitmap.dirty_bytes(), dirty);
    std::vector<std::byte> bytes(align_up(div_ceil(bits_.size(), 8), 64));
    for (size_t i = 0; i < bits_.size(); ++i)
      if (bits_[i]) bytes[i / 8] |= std::byte{1} << i % 8;
    ASSERT_EQ(bitmap.serialized_bytes(), div_ceil(bits_.size(), 8));
    for (size_t first = 0; first < bytes.size(); first += 64) {
      std::vector<std::byte> piece(64);
      bitmap.serialize(first, piece);
      ASSERT_TRUE(std::equal(piece.begin(), piece.end(), bytes.begin() + first)) << first;
    }
  }

 private:
  uint64_t length_;
  uint64_t granularity_;
  std::vector<bool> bits_;
};

TEST(DirtyBitmap, DoesWhatOneBoolAGranuleDoes) {
  std::mt19937_64 random(3);
  for (const uint64_t granularity : {512u, 4096u, 65536u}) {
    const uint64_t length = granularity * 200'000 - 77;  // several chunks, a short last granule
    DirtyBitmap bitmap("b", length, granularity);
    Model model(length, granularity);
    for (int step = 0; step < 300; ++step) {
      const uint64_t some = step % 3 == 0 ? granularity * 70'000 : granularity * 40;
      uint64_t offset = random() % length;
      uint64_t count = random() % some;
      if (step % 5 == 0) {  // whole chunks
        offset = align_down(offset, granularity * 32768);
        count = granularity * 32768 * (1 + random() % 2);
      }
      const bool value = random() % 3 != 0;
      value ? bitmap.mark(offset, count) : bitmap.clean(offset, count);
      model.set(offset, count, value);
      if (step % 50 == 49) model.compare(bitmap);
      if (HasFatalFailure()) return;
    }
    for (const uint64_t size : {length / 3, length / 3 + 5 * granularity, length * 2}) {
      bitmap.resize(size);
      model.resize(size);
      model.compare(bitmap);
    }
    // What was stored comes back, in pieces.
    DirtyBitmap copy("c", bitmap.length(), granularity);
    std::vector<std::byte> piece(1000 * 8);
    for (uint64_t at = 0; at < bitmap.serialized_bytes(); at += piece.size())
      if (bitmap.serialize(at, piece)) copy.deserialize(at, piece);
    model.compare(copy);
    bitmap.clear();
    EXPECT_EQ(bitmap.dirty_bytes(), 0u);
    EXPECT_FALSE(bitmap.serialize(0, piece));
  }
}

TEST(DirtyBitmap, MergesAcrossGranularities) {
  std::mt19937_64 random(4);
  const uint64_t length = (64 << 20) + 12345;
  for (const uint64_t to : {512u, 4096u, 1u << 20}) {
    for (const uint64_t from : {512u, 65536u, 1u << 20}) {
      DirtyBitmap target("t", length, to), source("s", length, from);
      Model target_model(length, to), source_model(length, from);
      for (int i = 0; i < 20; ++i) {
        const uint64_t a = random() % length, b = random() % length;
        target.mark(a, 5000);
        target_model.set(a, 5000, true);
        source.mark(b, 300'000);
        source_model.set(b, 300'000, true);
      }
      target.merge(source);
      target_model.merge(source_model);
      target_model.compare(target);
    }
  }
  DirtyBitmap small("a", 4096, 512), large("b", 8192, 512);
  EXPECT_EQ(error_of([&] { small.merge(large); }),
            "Bitmaps are of different sizes (destination size is 4096, source size is 8192) and "
            "can't be merged");
}

TEST(DirtyBitmap, OnesPastTheEndAreIgnored) {
  DirtyBitmap bitmap("b", 512 * 11, 512);
  std::vector<std::byte> ones(64, std::byte{0xff});
  bitmap.deserialize(0, ones);
  EXPECT_EQ(bitmap.dirty_bytes(), 512u * 11);
  bitmap.clear();
  bitmap.deserialize_ones(0, 1 << 20);
  EXPECT_EQ(bitmap.dirty_bytes(), 512u * 11);
  bitmap.resize(512 * 40);
  EXPECT_EQ(bitmap.dirty_bytes(), 512u * 11);
}

TEST(DirtyBitmap, RefusesWhatItCannotBe) {
  for (const uint64_t bad : {0ull, 256ull, 1000ull, 1ull << 32})
    EXPECT_EQ(error_of([&] { DirtyBitmap("b", 4096, bad); }),
              "Granularity must be power of 2 and at least 512");
  EXPECT_NE(error_of([] { DirtyBitmap("b", uint64_t{1} << 50, 512); }), "");
  DirtyBitmap largest("b", uint64_t{1} << 41, 512);  // as many bits as may be, and no memory
  largest.mark(0, UINT64_MAX);
  EXPECT_EQ(largest.dirty_bytes(), uint64_t{1} << 41);
  EXPECT_NE(error_of([&] { largest.resize((uint64_t{1} << 41) + 1); }), "");
  EXPECT_EQ(largest.length(), uint64_t{1} << 41);
}

TEST(DirtyBitmap, TakesMarksFromManyThreads) {
  DirtyBitmap bitmap("b", 64 << 20, 512);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&bitmap, t] {
      for (uint64_t i = t; i < (64 << 20) / 512; i += 4) {
        bitmap.mark(i * 512, 1);
        if (i % 1000 == 0) bitmap.run_at(0, UINT64_MAX);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(bitmap.dirty_bytes(), 64u << 20);
}

// --- on a node ---

std::string runs_of(const DirtyBitmap& bitmap) {
  std::string text;
  for (uint64_t at = 0; at < bitmap.length();) {
    const DirtyBitmap::Run run = bitmap.run_at(at, UINT64_MAX);
    if (run.dirty) text += std::to_string(at) + "+" + std::to_string(run.length) + " ";
    at += run.length;
  }
  return text;
}

TEST(NodeBitmaps, RecordEveryKindOfChange) {
  for (const char* format : {"raw", "qcow2"}) {
    Folder folder;
    World world;
    world.create(folder.file("a"), format, 4 << 20);
    NodePtr node = world.open(folder.file("a"), format, true);
    const DirtyBitmapPtr bitmap = add_bitmap(*node, {.name = "b", .granularity = 4096});
    const DirtyBitmapPtr off =
        add_bitmap(*node, {.name = "off", .granularity = 4096, .enabled = false});
    const std::vector<std::byte> data(5000, std::byte{1});
    world.run(node->write(4096, data));
    EXPECT_EQ(runs_of(*bitmap), "4096+8192 ");
    bitmap->clear();
    world.run(node->write_zeroes(100, 5000));
    EXPECT_EQ(runs_of(*bitmap), "0+8192 ");
    bitmap->clear();
    world.run(node->discard(65536, 131072));
    EXPECT_EQ(runs_of(*bitmap), "65536+131072 ");
    bitmap->clear();
    if (supports_compression(*node)) {
      const std::vector<std::byte> cluster(65536, std::byte{2});
      world.run(write_compressed(*node, 1 << 20, cluster));
      EXPECT_EQ(runs_of(*bitmap), "1048576+65536 ");
      bitmap->clear();
    }
    world.run(node->write_zeroes(0, 4 << 20));
    world.run(node->resize({.length = 5 << 20}));
    EXPECT_EQ(runs_of(*bitmap), "0+4194304 ");
    world.run(node->resize({.length = 1 << 20}));
    EXPECT_EQ(runs_of(*bitmap), "0+1048576 ");
    EXPECT_EQ(off->dirty_bytes(), 0u);
    EXPECT_EQ(node->bitmaps().get("b"), bitmap);
    bitmap->set_busy(true);
    EXPECT_EQ(error_of([&] { node->bitmaps().remove("b"); }),
              "Bitmap 'b' is currently in use by another operation and cannot be used");
    bitmap->set_busy(false);
    node->bitmaps().remove("b");
    EXPECT_EQ(error_of([&] { node->bitmaps().get("b"); }), "Dirty bitmap 'b' not found");
    world.close(node);
  }
}

TEST(NodeBitmaps, RecordWhatTheKernelCopiedAndWhatFailed) {
  Folder folder;
  World world;
  world.create(folder.file("a"), "raw", 1 << 20);
  world.create(folder.file("s"), "raw", 1 << 20);
  NodePtr source = world.open(folder.file("s"), "raw", true);
  NodePtr node = world.open(folder.file("a"), "raw", true);
  const DirtyBitmapPtr bitmap = add_bitmap(*node, {.name = "b", .granularity = 65536});
  const bool copied = world.run(node->copy_range_from(*source, 0, 65536, 65536));
  EXPECT_EQ(runs_of(*bitmap), copied ? "65536+65536 " : "");
  world.close(source);
  world.close(node);

  OpenRequest request;
  request.options = Options::parse_list(
      "driver=raw,file.driver=fault,file.on=write,file.errno=28,file.file.driver=file,"
      "file.file.filename=" +
      folder.file("a"));
  request.image_opts = true;
  request.flags.writable = true;
  NodePtr failing = world.run(open_node(world.context, std::move(request)));
  const DirtyBitmapPtr half = add_bitmap(*failing, {.name = "b", .granularity = 65536});
  const std::vector<std::byte> data(100, std::byte{1});
  EXPECT_NE(error_of([&] { world.run(failing->write(65536, data)); }), "");
  EXPECT_EQ(runs_of(*half), "65536+65536 ");
  world.close(failing);
}

}  // namespace
}  // namespace cairn
