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
  TableCache cache(nullptr, *file, 4096, 100);
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
