#pragma once

#include <functional>

#include "async/cancel.h"
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
  static Task<Look> look(Node* below, uint64_t offset, uint64_t max);
  static Task<void> read(Node* below, uint64_t offset, MutableByteSpan out);
  Task<void> settle(uint64_t offset, MutableByteSpan before, MutableByteSpan after);
  Task<void> keep(uint64_t offset, ByteSpan bytes);

  NodePtr overlay_;
  NodePtr old_;
  NodePtr new_;
  bool compress_;
  const CancelSource& cancel_;
};

}  // namespace cairn
