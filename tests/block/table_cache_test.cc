#include "block/table_cache.h"

#include <thread>

#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

Task<void> use(TableCache& cache, uint64_t offset, bool change) {
  const TableCache::Ref ref = co_await cache.get(offset);
  if (!change) co_return;
  ref.store_entry(0, 7);
  cache.mark_dirty(ref);
}

TEST(TableCache, WhatNobodyUsesLeavesMemory) {
  World world;
  Folder folder;
  world.create(folder.file("file"), "raw", 1 << 20);
  NodePtr file = world.open(folder.file("file"), "raw", true);
  TableCache cache(nullptr, *file, "tables", 4096, 100);
  cache.set_clean_interval(std::chrono::seconds(1));
  for (uint64_t i = 0; i < 20; ++i) world.run(use(cache, i * 4096, i == 3));
  EXPECT_EQ(cache.size(), 20u);
  std::this_thread::sleep_for(std::chrono::milliseconds(2100));
  world.run(use(cache, 0, false));
  // What was changed stays until it is written.
  EXPECT_EQ(cache.size(), 2u);
  world.run(cache.write_back());
  std::this_thread::sleep_for(std::chrono::milliseconds(2100));
  world.run(use(cache, 4096, false));
  EXPECT_EQ(cache.size(), 1u);
  std::vector<std::byte> entry(8);
  world.run(file->read(3 * 4096, entry));
  EXPECT_EQ(load_be<uint64_t>(entry, 0), 7u);
  world.close(file);
}

// A cache of one file whose writing stops until it may go on.
struct Halted {
  explicit Halted(World& world)
      : file((world.create(folder.file("file"), "raw", 1 << 20),
              world.open(folder.file("file"), "raw", true))),
        cache(nullptr, *file, "tables", 4096, 2) {
    cache.set_before_write([this]() -> Task<void> {
      reached.release();
      co_await go_on.acquire();
    });
  }
  // A changed block at offset 0 is being written.
  Task<void> begin() {
    co_await use(cache, 0, true);
    spawn_detached([](Halted& all) -> Task<void> {
      co_await all.cache.write_back();
      all.over.release();
    }(*this));
    co_await reached.acquire();
  }

  Folder folder;
  NodePtr file;
  TableCache cache;
  Semaphore reached{0}, go_on{0}, over{0};
};

TEST(TableCache, AFlushWaitsForWhatOthersWrite) {
  World world;
  Halted halted(world);
  world.run([](Halted& all) -> Task<void> {
    co_await all.begin();
    spawn_detached([](Halted& other) -> Task<void> {
      co_await other.cache.flush();
      std::vector<std::byte> entry(8);
      co_await other.file->read(0, entry);
      EXPECT_EQ(load_be<uint64_t>(entry, 0), 7u);
      other.over.release();
    }(all));
    // Time in which a flush that does not wait would end.
    Nap nap;
    co_await nap.sleep_for(std::chrono::milliseconds(50));
    all.go_on.release();
    co_await all.over.acquire();
    co_await all.over.acquire();
  }(halted));
  world.close(halted.file);
}

TEST(TableCache, WhatIsBeingWrittenStaysInMemory) {
  World world;
  Halted halted(world);
  world.run([](Halted& all) -> Task<void> {
    co_await all.begin();
    for (uint64_t i = 1; i < 9; ++i) co_await use(all.cache, i * 4096, false);
    {
      const TableCache::Ref ref = co_await all.cache.get(0);
      EXPECT_EQ(ref.load_entry(0), 7u);
    }
    all.go_on.release();
    co_await all.over.acquire();
  }(halted));
  world.close(halted.file);
}

TEST(Nap, EndsWhenAskedTo) {
  World world(2);
  const auto begin = std::chrono::steady_clock::now();
  world.run([](World& all) -> Task<void> {
    auto nap = std::make_shared<Nap>();
    auto ended = std::make_shared<Semaphore>(0);
    spawn_detached([](std::shared_ptr<Nap> own, std::shared_ptr<Semaphore> over) -> Task<void> {
      while (!own->woken()) co_await own->sleep_for(std::chrono::hours(1));
      over->release();
    }(nap, ended));
    co_await run_on(all.context.runtime().worker(1), nap->wake());
    co_await ended->acquire();
    co_await nap->sleep_for(std::chrono::hours(1));
  }(world));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::minutes(1));
}

}  // namespace
}  // namespace cairn
