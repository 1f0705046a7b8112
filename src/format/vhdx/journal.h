#pragma once

#include <atomic>
#include <functional>

#include "async/sync.h"
#include "block/node.h"
#include "format/vhdx/layout.h"
#include "format/vhdx/pages.h"

namespace cairn::vhdx {

// The headers and the log of an image that is written.
//
//  1. Before the first change of a session both headers get new identifiers of the file's content.
//  2. Changes of metadata are taken together; then the file is flushed (what they point to, and
//     what earlier entries changed, is durable), an entry of the log written and flushed, and only
//     then the changes are made in place. Every entry is thus a sequence of its own.
//  3. The headers name the log after its first entry is durable, so that they never name an empty
//     one; and no longer when all is in place: on closing, and before the log begins again. It
//     never wraps with one identifier.
class Journal {
 public:
  Journal(Node& file, Pages& pages, CurrentHeader header);

  const Header& header() const { return header_; }
  bool other_damaged() const { return other_damaged_; }

  // To be called before anything is changed; VISIBLE: what the guest sees, too.
  Task<void> begin(bool visible);
  // Where the log of an image without one is to be.
  void set_log_place(uint64_t offset, uint32_t length);
  // Puts all changes of the pages on disk and calls FREED with what they released.
  Task<void> commit(std::function<void(const std::vector<Room>&)> freed);
  // All that the log holds is in place: it counts no longer.
  Task<void> empty_log();
  // Before a log is replayed, and after: new headers without changes of the guest's.
  Task<void> write_headers();
  void forget_log() { header_.log_guid = Uuid{}; }

 private:
  Task<void> append(const Pages::Batch& batch, size_t begin, size_t end);
  Task<void> empty_log_locked();
  Task<void> write_headers_locked();
  Task<void> name_log_locked(Uuid guid);

  Node& file_;
  Pages& pages_;
  Mutex mutex_;  // guards everything below
  Header header_;
  unsigned slot_;
  bool other_damaged_;
  std::atomic<int> session_{0};  // 1: the file changes, 2: what the guest sees does
  Uuid guid_;                    // of the entries
  uint64_t position_ = 0;        // of the next one
  uint64_t sequence_ = 1;
};

}  // namespace cairn::vhdx
