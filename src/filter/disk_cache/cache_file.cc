#include "filter/disk_cache/cache_file.h"

#include <algorithm>
#include <cerrno>
#include <new>

#include "async/runtime.h"
#include "base/crc32c.h"

namespace cairn::disk_cache {
namespace {

// How exactly the last use is known.
constexpr uint64_t kTouchPeriodMs = 1000;

Task<bool> read_all(IoFile file, uint64_t offset, MutableByteSpan out) {
  while (!out.empty()) {
    const iovec part{out.data(), out.size()};
    const ssize_t got = co_await io_readv(file, std::span(&part, 1), offset);
    if (got == -EINTR) continue;
    if (got <= 0) co_return false;
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  co_return true;
}

}  // namespace

CacheFile::CacheFile(std::shared_ptr<Directory> directory, Header header, OwnFd fd,
                     std::function<void(int error)> failed)
    : directory_(std::move(directory)),
      header_(std::move(header)),
      seed_(header_.seed()),
      fd_(std::move(fd)),
      file_{.fd = fd_.get()},
      failed_(std::move(failed)),
      touched_(header_.regions()) {}

Task<std::vector<Entry>> CacheFile::entries(uint64_t first, uint64_t count) {
  std::vector<Entry> result(count);
  std::vector<std::byte> bytes(8 * count);
  const bool known = co_await read_all(file_, header_.entry_offset(first), bytes);
  if (known)
    for (uint64_t i = 0; i < count; ++i)
      result[i] = Entry::decode(load_le<uint64_t>(bytes, 8 * i), first + i, seed_);
  co_return result;
}

Task<bool> CacheFile::read(uint64_t first, std::vector<Entry> entries, MutableByteSpan out) {
  const bool there = co_await read_all(file_, header_.data_offset(first), out);
  if (!there) co_return false;
  for (size_t i = 0; i < entries.size(); ++i) {
    const MutableByteSpan cluster = out.first(header_.bytes_of_cluster(first + i));
    if (crc32c(cluster) != entries[i].checksum) co_return false;
    out = out.subspan(cluster.size());
  }
  co_return true;
}

Task<bool> CacheFile::write(uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    const ssize_t done = co_await io_writev(file_, std::span(&part, 1), offset);
    if (done == -EINTR) continue;
    if (done <= 0) {
      if (keeping_.exchange(false)) failed_(done == 0 ? ENOSPC : static_cast<int>(-done));
      co_return false;
    }
    offset += static_cast<uint64_t>(done);
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
  co_return true;
}

Task<void> CacheFile::keep(uint64_t first, ByteSpan bytes,
                           std::shared_ptr<RangeLock::Guard> fetching) {
  if (!keeping_.load(std::memory_order_relaxed)) co_return;
  co_await under_way_.acquire(bytes.size());
  try {
    std::vector<std::byte> copy(bytes.begin(), bytes.end());
    spawn_detached_on(Worker::current()->home(),
                      store_copy(shared_from_this(), first, std::move(copy), std::move(fetching)));
  } catch (const std::bad_alloc&) {
    under_way_.release(bytes.size());
  }
}

Task<void> CacheFile::store_copy(std::shared_ptr<CacheFile> self, uint64_t first,
                                 std::vector<std::byte> bytes,
                                 std::shared_ptr<RangeLock::Guard> fetching) {
  try {
    co_await self->store(first, bytes);
  } catch (const std::exception&) {
    // It is not kept.
  }
  fetching.reset();
  self->under_way_.release(bytes.size());
}

Task<void> CacheFile::settle() {
  co_await under_way_.acquire(kMostUnderWay);
  under_way_.release(kMostUnderWay);
}

Task<void> CacheFile::store(uint64_t first, ByteSpan bytes) {
  if (!keeping_.load(std::memory_order_relaxed)) co_return;
  std::vector<std::byte> index;
  uint64_t stored = 0;
  // Runs of clusters that hold data are written at once, zeroes not at all.
  uint64_t run_first = first;
  ByteSpan run = bytes.first(0);
  ByteSpan rest = bytes;
  uint64_t cluster = first;
  while (true) {
    const ByteSpan part = rest.empty() ? rest : rest.first(header_.bytes_of_cluster(cluster));
    const bool zero = !part.empty() && is_zero(part);
    if ((part.empty() || zero) && !run.empty()) {
      const bool kept = co_await write(header_.data_offset(run_first), run);
      if (!kept) co_return;
      stored += run.size();
      run = run.first(0);
    }
    if (part.empty()) break;
    if (!zero) {
      if (run.empty()) run_first = cluster;
      run = ByteSpan(run.empty() ? part.data() : run.data(), run.size() + part.size());
    }
    const Entry entry{.state = zero ? Entry::State::kZero : Entry::State::kData,
                      .checksum = zero ? 0 : crc32c(part)};
    index.resize(index.size() + 8);
    store_le<uint64_t>(index, index.size() - 8, entry.encode(cluster, seed_));
    rest = rest.subspan(part.size());
    ++cluster;
  }
  const bool kept = co_await write(header_.entry_offset(first), index);
  if (!kept) co_return;
  // Always: its space may have been given back since it was last used, and its time with it.
  co_await note_use(first, cluster - first, true);
  // The space of the entries counts as well, so that zeroes without end are bounded too.
  const uint64_t added = stored + index.size();
  Directory& directory = *directory_;
  if (directory.due(added)) co_await run_blocking([&directory] { directory.trim(); });
}

Task<void> CacheFile::touch(uint64_t first, uint64_t count) {
  return note_use(first, count, false);
}

Task<void> CacheFile::note_use(uint64_t first, uint64_t count, bool always) {
  const uint64_t now = now_ms();
  for (uint64_t region = first / kRegionClusters; region <= (first + count - 1) / kRegionClusters;
       ++region) {
    std::atomic<uint64_t>& last = touched_[region];
    if (!always && last.load(std::memory_order_relaxed) + kTouchPeriodMs > now) continue;
    last.store(now, std::memory_order_relaxed);
    std::vector<std::byte> time(8);
    store_le<uint64_t>(time, 0, now);
    if (!keeping_.load(std::memory_order_relaxed)) co_return;
    co_await write(header_.time_offset(region), time);
  }
}

}  // namespace cairn::disk_cache
