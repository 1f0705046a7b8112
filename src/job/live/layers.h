#pragma once

#include <cstdint>
#include <string>

#include "async/sync.h"
#include "block/node.h"
#include "job/live/copy_engine.h"

namespace cairn::live {

// Copies what layers of a chain decide into one of them: into the top one (stream), or into the
// one below them (commit).
class LayerCopy : public CopyMethod {
 public:
  // Layers count from TOP, which is 0: those from FIRST on, before END, are copied into TARGET.
  // RANGES unless null keeps the target's users out of a place that is being copied.
  LayerCopy(NodePtr top, unsigned first, unsigned end, NodePtr target, RangeLock* ranges)
      : top_(std::move(top)),
        first_(first),
        end_(end),
        target_(std::move(target)),
        ranges_(ranges) {}

  Task<CopyPiece> look(uint64_t offset, uint64_t max) override;
  Task<void> copy(CopyPiece piece, MutableByteSpan buffer, JobSide* side) override;

 private:
  const NodePtr top_;
  const unsigned first_;
  const unsigned end_;
  const NodePtr target_;
  RangeLock* const ranges_;
};

// The node below AT in its chain, filters included; null where there is none. A raw node is a layer
// that has no backing file, whatever it shows.
Node* next_below(const Node& at);
// TOP, or what is below it where it is a filter.
Node& through_filters(Node& top);
// How many layers there are from TOP down to BASE, which does not count; filters do not either.
// BASE null: all of them. Nothing where BASE is not in the chain.
std::optional<unsigned> layers_above(const Node& top, const Node* base);
// The name and the format that an image stores of BASE as its backing file.
std::string stored_name(Node& base);
std::string stored_format(Node& base);

}  // namespace cairn::live
