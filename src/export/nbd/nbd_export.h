#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/node.h"
#include "net/nbd_wire.h"

namespace cairn::nbd::server {

// Which bytes of a bitmap are dirty: the run that begins at OFFSET, at most MAX bytes.
struct DirtyRun {
  uint64_t length = 0;
  bool dirty = false;
};
using DirtyLookup = std::function<DirtyRun(uint64_t offset, uint64_t max)>;

struct ExportOptions {
  std::string name;
  std::string description;
  NodePtr node;         // closed by its opener
  uint64_t offset = 0;  // of the export in the node, bytes
  uint64_t size = 0;    // bytes, within the node
  bool writable = false;
  bool multi_conn = true;         // several clients see one state: said to them
  bool allocation_depth = false;  // offers qemu:allocation-depth
  // Offers qemu:dirty-bitmap:NAME for each.
  std::vector<std::pair<std::string, DirtyLookup>> bitmaps;
};

// One disk as NBD clients see it. Immutable, used from all workers.
class Export {
 public:
  explicit Export(ExportOptions options) : options_(std::move(options)) {}

  const std::string& name() const { return options_.name; }
  const std::string& description() const { return options_.description; }
  uint64_t size() const { return options_.size; }
  bool writable() const { return options_.writable; }
  Node& node() const { return *options_.node; }
  // Where byte OFFSET of the export is in the node.
  uint64_t in_node(uint64_t offset) const { return options_.offset + offset; }

  // Transmission flags without those that depend on what the client negotiated.
  uint16_t flags() const;
  // What requests must be aligned to; the node itself takes any.
  BlockSizeInfo block_sizes() const;

  // Metadata contexts; a context's id is its index.
  static constexpr uint32_t kAllocation = 0;
  static constexpr uint32_t kAllocationDepth = 1;
  static constexpr uint32_t kFirstBitmap = 2;
  struct ContextName {
    uint32_t id = 0;
    std::string name;
  };
  // All that are offered, in the order of their ids.
  std::vector<ContextName> contexts() const;
  // Those that QUERY means. A prefix ("base:") means all below it where LISTING.
  std::vector<uint32_t> matching(const std::string& query, bool listing) const;

  // Extents of CONTEXT from OFFSET on: at least one, at most MOST, none beyond OFFSET + LENGTH,
  // neighbours merged. Each extent's length is at most LONGEST.
  Task<std::vector<StatusExtent>> status(uint32_t context, uint64_t offset, uint64_t length,
                                         size_t most, uint64_t longest) const;

 private:
  Task<StatusExtent> state_at(uint32_t context, uint64_t offset, uint64_t max) const;
  ExportOptions options_;
};

using ExportPtr = std::shared_ptr<const Export>;

}  // namespace cairn::nbd::server
