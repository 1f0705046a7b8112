#pragma once

#include <functional>

#include "async/cancel.h"
#include "async/sync.h"
#include "block/context.h"
#include "block/node.h"

namespace cairn {

// Makes an overlay independent of what is below it before that is exchanged: where the overlay
// holds nothing and the old and the new layers below differ, the old bytes are written into the
// overlay.
//
// The overlay is writable and opened without its backing file; OLD and NEW may be null and then
// read as zeroes.
class Rebase {
 public:
  Rebase(NodePtr overlay, NodePtr old_below, NodePtr new_below, bool compress,
         const CancelSource& cancel)
      : overlay_(std::move(overlay)),
        old_(std::move(old_below)),
        new_(std::move(new_below)),
        compress_(compress),
        cancel_(cancel) {}
  std::function<void(uint64_t done, uint64_t total)> progress;
  // Throws "error while reading from old backing file" and the like. The guest sees the same disk
  // at every moment.
  Task<void> run();

 private:
  struct Look {
    bool zero = true;
    const Node* host = nullptr;
    uint64_t host_offset = 0;
    uint64_t length = 0;
  };
  struct Piece {
    uint64_t offset = 0;
    uint64_t length = 0;
    bool differs = false;   // perhaps: old and new bytes are to be compared
    bool new_zero = false;  // the new bytes are known to be zeroes
  };
  Task<void> settle_pieces();
  Task<Piece> next_piece(uint64_t at);
  // A layer below and what was last asked of it: a long extent is looked up once, not once a piece.
  struct Layer {
    Node* node = nullptr;
    Look known = {};
    uint64_t begin = 0;  // of what is known
  };
  static Task<Look> look(Layer& layer, uint64_t offset, uint64_t max);
  static Task<void> read(Node* below, uint64_t offset, MutableByteSpan out);
  // AFTER is empty when the new bytes are known to be zeroes.
  Task<void> settle(uint64_t offset, MutableByteSpan before, MutableByteSpan after);
  Task<void> keep(uint64_t offset, ByteSpan bytes);

  NodePtr overlay_;
  NodePtr old_;
  NodePtr new_;
  bool compress_;
  const CancelSource& cancel_;
  uint64_t total_ = 0;
  Layer before_;
  Layer after_;
  Extent own_;            // of the overlay
  uint64_t own_end_ = 0;  // where that ends
  Mutex next_mutex_;      // the rest
  uint64_t next_ = 0;     // offset that nobody has taken yet
  uint64_t done_ = 0;     // bytes dealt with
};

}  // namespace cairn
