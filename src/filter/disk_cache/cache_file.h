#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "async/io.h"
#include "async/sync.h"
#include "async/task.h"
#include "base/own_fd.h"
#include "filter/disk_cache/directory.h"
#include "filter/disk_cache/layout.h"

namespace cairn::disk_cache {

// What is kept of one image. From any worker. Nothing here fails: what cannot be read counts as
// missing, and what cannot be written is not kept. It is owned by shared pointers.
class CacheFile : public std::enable_shared_from_this<CacheFile> {
 public:
  // How many bytes may wait to be written.
  static constexpr uint64_t kMostUnderWay = 16 << 20;

  // FD is DIRECTORY's file for HEADER. FAILED is called once when nothing can be kept any more,
  // with the error of the system.
  CacheFile(std::shared_ptr<Directory> directory, Header header, OwnFd fd,
            std::function<void(int error)> failed);

  const Header& header() const { return header_; }
  // Held exclusively over the bytes that are being fetched.
  RangeLock& fetching() { return fetching_; }

  // The entries of COUNT clusters from FIRST on.
  Task<std::vector<Entry>> entries(uint64_t first, uint64_t count);
  // Reads the clusters of ENTRIES, all of them kData, into OUT. False when one of them is not what
  // was stored.
  Task<bool> read(uint64_t first, std::vector<Entry> entries, MutableByteSpan out);
  // Keeps BYTES, whole clusters from FIRST on.
  Task<void> store(uint64_t first, ByteSpan bytes);
  // The same in the background, of at most kMostUnderWay bytes. Returns when they are copied, which
  // waits while too many are under way. FETCHING, which locks them, is let go when they are
  // written.
  Task<void> keep(uint64_t first, ByteSpan bytes, std::shared_ptr<RangeLock::Guard> fetching);
  // Returns when all that was to be kept is written.
  Task<void> settle();
  // COUNT clusters from FIRST on were used.
  Task<void> touch(uint64_t first, uint64_t count);

 private:
  static Task<void> store_copy(std::shared_ptr<CacheFile> self, uint64_t first,
                               std::vector<std::byte> bytes,
                               std::shared_ptr<RangeLock::Guard> fetching);
  Task<void> note_use(uint64_t first, uint64_t count, bool always);
  Task<bool> write(uint64_t offset, ByteSpan bytes);

  const std::shared_ptr<Directory> directory_;
  const Header header_;
  const uint32_t seed_;
  const OwnFd fd_;
  const IoFile file_;
  const std::function<void(int error)> failed_;
  std::atomic<bool> keeping_{true};
  RangeLock fetching_;
  Semaphore under_way_{kMostUnderWay};
  std::vector<std::atomic<uint64_t>> touched_;  // when a region's use was last written down
};

}  // namespace cairn::disk_cache
