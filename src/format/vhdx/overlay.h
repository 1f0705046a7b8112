#pragma once

#include <map>

#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "format/vhdx/log_reader.h"

namespace cairn::vhdx {

// A file as it will be when its log has been replayed, for images that are only read. It keeps
// where in the log the sectors are, not their bytes.
class OverlayNode : public Node, public StorageUse {
 public:
  using Capabilities = CapabilityList<StorageUse>;

  OverlayNode(Context& context, NodePtr file, const Header& header);
  // ENTRIES have been checked.
  Task<void> load(const std::vector<LogEntry>& entries);
  Task<std::optional<uint64_t>> allocated_bytes() override { return allocated_bytes_of(*file_); }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_close() override { co_return; }
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;

 private:
  struct Change {
    uint64_t end = 0;
    uint64_t place = 0;  // of the data sector
    LogDescriptor what;
  };
  void put(uint64_t begin, Change change);

  NodePtr file_;
  LogReader reader_;
  std::map<uint64_t, Change> changes_;  // by where they begin; disjoint
};

}  // namespace cairn::vhdx
