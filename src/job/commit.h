#pragma once

#include <functional>
#include <mutex>
#include <vector>

#include "async/cancel.h"
#include "async/sync.h"
#include "async/task_group.h"
#include "block/context.h"
#include "block/node.h"
#include "block/rate_limit.h"

namespace cairn {

// Copies what the layers above a base decide into the base.
//
// LAYERS, top first, are opened without their backing files, each for itself; the base is writable
// and is grown to the size of the top when it is shorter.
class Commit {
 public:
  Commit(std::vector<NodePtr> layers, NodePtr base, uint64_t rate, const CancelSource& cancel)
      : layers_(std::move(layers)), base_(std::move(base)), writes_(rate), cancel_(cancel) {}
  std::function<void(uint64_t done, uint64_t total)> progress;
  // Throws the first error. The base is then partly changed, the layers are not: it can be
  // repeated.
  Task<void> run();

 private:
  struct Piece {
    Node* layer = nullptr;  // who has the bytes; null: nobody above the base
    bool zero = false;
    uint64_t length = 0;
  };
  struct Region {
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  // What was last asked of a layer: a long extent is looked up once, not once a piece.
  struct Known {
    Extent extent;
    uint64_t end = 0;
  };
  Task<Piece> look(std::vector<Known>& asked, uint64_t offset, uint64_t max) const;
  Task<Region> claim(const TaskGroup& group);
  Task<void> copy_regions(const TaskGroup& group);
  Task<void> copy(const Piece& piece, uint64_t at, MutableByteSpan buffer);
  void settle(const Piece& piece);
  std::vector<NodePtr> layers_;
  NodePtr base_;
  RateLimit writes_;
  const CancelSource& cancel_;
  uint64_t total_ = 0;
  Mutex next_mutex_;          // what follows
  std::vector<Known> known_;  // of each layer
  uint64_t next_ = 0;         // offset that nobody has taken yet
  std::mutex done_mutex_;     // the rest
  uint64_t done_ = 0;         // bytes dealt with
};

}  // namespace cairn
