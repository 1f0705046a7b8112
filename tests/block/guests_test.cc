// Any thread may use a Context, and several may use one disk.
#include <atomic>
#include <cstring>
#include <future>
#include <mutex>
#include <thread>

#include "async/async.h"
#include "block/capabilities/compressed_writer.h"
#include "job/convert.h"
#include "support.h"

namespace cairn {
namespace {

using namespace std::chrono_literals;
using namespace testing_support;

constexpr unsigned kThreads = 8;
constexpr uint64_t kSize = 4 << 20;

template <class F>
void on_threads(unsigned count, F work) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

// What stands at the beginning of each of the parts that belong to a thread.
std::vector<std::byte> pattern(unsigned number, size_t count) {
  std::mt19937_64 random(number);
  return random_bytes(random, count);
}

class Guests : public testing::TestWithParam<const char*> {};

// Two threads, each with a disk of its own: the case that hung.
TEST_P(Guests, TwoThreadsOneContext) {
  Folder folder;
  World world;
  std::atomic<unsigned> wrong{0};
  on_threads(2, [&](unsigned number) {
    const std::string name = folder.file("disk" + std::to_string(number));
    world.create(name, GetParam(), kSize);
    NodePtr node = world.open(name, GetParam(), true);
    for (unsigned round = 0; round < 50; ++round) {
      const auto bytes = pattern(number * 100 + round, 9000);
      std::vector<std::byte> back(bytes.size());
      world.run(node->write(round * 70000, bytes));
      world.run(node->read(round * 70000, back));
      wrong += back != bytes;
    }
    world.close(node);
  });
  EXPECT_EQ(wrong, 0u);
}

// Opened by a thread that goes, used by others, closed by yet another one.
TEST_P(Guests, OneOpensOthersReadAndWrite) {
  Folder folder;
  World world;
  const std::string name = folder.file("disk");
  NodePtr node;
  std::thread([&] {
    world.create(name, GetParam(), kSize);
    node = world.open(name, GetParam(), true);
  }).join();
  const uint64_t part = kSize / kThreads;
  std::atomic<unsigned> wrong{0};
  on_threads(kThreads, [&](unsigned number) {
    std::vector<std::byte> model(part), back;
    std::mt19937_64 random(number);
    for (unsigned round = 0; round < 40; ++round) {
      const uint64_t length = 1 + random() % 30000;
      const uint64_t at = random() % (part - length);
      if (random() % 4 == 0) {
        world.run(node->write_zeroes(number * part + at, length, {.may_unmap = true}));
        std::memset(model.data() + at, 0, length);
      } else {
        const auto bytes = random_bytes(random, length);
        world.run(node->write(number * part + at, bytes));
        std::memcpy(model.data() + at, bytes.data(), length);
      }
      if (round % 10 == 9) world.run(node->flush());
      back.resize(length);
      world.run(node->read(number * part + at, back));
      wrong += std::memcmp(back.data(), model.data() + at, length) != 0;
    }
    back.resize(part);
    world.run(node->read(number * part, back));
    wrong += back != model;
  });
  EXPECT_EQ(wrong, 0u);
  std::thread([&] { world.close(node); }).join();
}

INSTANTIATE_TEST_SUITE_P(Formats, Guests, testing::Values("raw", "qcow2", "vhdx", "vmdk", "qed"));

// Threads that open, read, write, copy, cancel and close at the same time.
TEST(GuestStress, EightThreadsDoEverything) {
  Folder folder;
  World world(2);
  const std::string base = folder.file("base");
  world.create(base, "raw", kSize);
  NodePtr node = world.open(base, "raw", true);
  const auto content = pattern(1, kSize);
  world.run(node->write(0, content));
  world.close(node);
  std::atomic<unsigned> wrong{0}, cancelled{0};
  on_threads(kThreads, [&](unsigned number) {
    const std::string name = folder.file("top" + std::to_string(number));
    std::mt19937_64 random(number);
    for (unsigned round = 0; round < 6; ++round) {
      CreateOptions create;
      create.filename = name;
      create.format = "qcow2";
      create.size = kSize;
      create.overwrite = true;
      create.options = Options::parse_list("backing_file=" + base + ",backing_fmt=raw");
      world.run(create_image(world.context, std::move(create)));
      NodePtr top = world.open(name, "qcow2", true);
      const auto bytes = random_bytes(random, 100000);
      const uint64_t at = random() % (kSize - bytes.size());
      world.run(top->write(at, bytes));
      std::vector<std::byte> all(kSize), model = content;
      std::memcpy(model.data() + at, bytes.data(), bytes.size());
      world.run(top->read(0, all));
      wrong += all != model;
      const std::string copy = folder.file("copy" + std::to_string(number));
      world.create(copy, "qcow2", kSize);
      NodePtr target = world.open(copy, "qcow2", true);
      CancelSource cancel;
      ConvertOptions options;
      options.parallel = 4;
      Convert convert(world.context, {top}, target, options, cancel);
      const bool ends = round % 2 == 0;
      convert.progress = [&](uint64_t, uint64_t) {
        if (!ends) cancel.request();
      };
      try {
        world.run(convert.run());
        std::vector<std::byte> copied(kSize);
        world.run(target->read(0, copied));
        wrong += copied != model;
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kCancelled) ++wrong;
        ++cancelled;
      }
      world.close(target);
      world.close(top);
    }
  });
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(cancelled, 0u);
}

// A job makes progress while no thread is inside of a call.
TEST(GuestJob, RunsOnResidentWorkers) {
  Folder folder;
  World world;
  world.create(folder.file("a"), "qcow2", kSize);
  world.create(folder.file("b"), "raw", kSize);
  NodePtr source = world.open(folder.file("a"), "qcow2", true);
  NodePtr target = world.open(folder.file("b"), "raw", true);
  const auto content = pattern(5, kSize);
  world.run(source->write(0, content));
  CancelSource cancel;
  Convert convert(world.context, {source}, target, {}, cancel);
  std::promise<void> over;
  spawn_detached_on(world.context.runtime().worker(0),
                    [](Convert& job, std::promise<void>& told) -> Task<void> {
                      try {
                        co_await job.run();
                        told.set_value();
                      } catch (...) {
                        told.set_exception(std::current_exception());
                      }
                    }(convert, over));
  std::future<void> result = over.get_future();
  ASSERT_EQ(result.wait_for(60s), std::future_status::ready);
  result.get();
  std::vector<std::byte> back(kSize);
  world.run(target->read(0, back));
  EXPECT_EQ(back, content);
  world.close(source);
  world.close(target);
}

// Reads in sequence decode ahead: what they start goes on when the reader has left.
TEST(GuestReadAhead, OfOneThreadServesTheOthers) {
  Folder folder;
  World world;
  const std::string name = folder.file("disk");
  world.create(name, "qcow2", kSize);
  NodePtr node = world.open(name, "qcow2", true);
  const auto content = pattern(7, kSize);
  for (uint64_t at = 0; at < kSize; at += 65536)
    world.run(write_compressed(*node, at, ByteSpan(content).subspan(at, 65536)));
  world.close(node);
  node = world.open(name, "qcow2", false);
  std::atomic<unsigned> wrong{0};
  for (uint64_t begin = 0; begin < kSize; begin += kSize / 4)
    on_threads(2, [&](unsigned) {
      std::vector<std::byte> back(16384);
      for (uint64_t at = begin; at < begin + kSize / 4; at += back.size()) {
        world.run(node->read(at, back));
        wrong += std::memcmp(back.data(), content.data() + at, back.size()) != 0;
      }
    });
  EXPECT_EQ(wrong, 0u);
  world.close(node);
}

// --- what goes without being closed ---

TEST(NotClosed, IsReportedWhenItWasWritten) {
  Folder folder;
  World world;
  const std::string name = folder.file("disk");
  world.create(name, "qcow2", kSize);
  std::vector<std::string> lines;
  world.context.warn = [&](std::string_view line) { lines.emplace_back(line); };
  // Without the timer of the table caches, which would outlast what goes unclosed.
  const std::string options = "cache-clean-interval=0";
  world.open(name, "qcow2", false, options).reset();
  world.open(name, "qcow2", true, options).reset();
  NodePtr node = world.open(name, "qcow2", true, options);
  const auto bytes = pattern(3, 512);
  world.run(node->write(0, bytes));
  world.close(node);
  EXPECT_TRUE(lines.empty());
  node = world.open(name, "qcow2", true, options);
  world.run(node->write(0, bytes));
  node.reset();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0], name + ": the image was not closed: what was written to it last may be lost");
}

}  // namespace
}  // namespace cairn
