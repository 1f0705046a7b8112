#pragma once

#include <string>
#include <string_view>

#include "async/sync.h"
#include "block/capabilities/child_use.h"
#include "block/driver.h"
#include "block/node.h"
#include "block/permissions.h"

namespace cairn::live {

// What a job puts above a disk to see or hold back what its users write. Passes everything on to
// the node below; the kinds of filters override what they care about.
class JobFilter : public Node, public ChildUse {
 public:
  // DRIVER_NAME is what queries show; CHILD_NAME names the node below.
  JobFilter(std::string_view driver_name, NodePtr below, std::string child_name);

  const NodePtr& below() const { return below_; }
  // Serialises what the job and the users of the disk do with the same bytes.
  RangeLock& ranges() { return ranges_; }
  // A second child.
  void add_target(NodePtr target) { add_child("target", std::move(target), ChildRole::kExtent); }

  bool child_use(std::string_view name, uint8_t& takes, uint8_t& shares) const override;

 protected:
  void* find_capability(CapabilityId id) override;
  bool take_child(std::string_view name, Node& child) override;
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;

 private:
  NodePtr below_;
  const std::string child_name_;
  RangeLock ranges_;
};

// What is above a layer that is being committed: reads of the chain go on, though the layers below
// do not show for themselves what they did.
class CommitFilter : public JobFilter {
 public:
  explicit CommitFilter(NodePtr below) : JobFilter("commit_top", std::move(below), "backing") {}

  bool child_use(std::string_view, uint8_t& takes, uint8_t& shares) const override {
    takes = 0;
    shares = Permissions::kAll;
    return true;
  }
};

// Writes wait for what the job copies into the same place.
class StreamFilter : public JobFilter {
 public:
  explicit StreamFilter(NodePtr below) : JobFilter("copy-on-read", std::move(below), "file") {}

 protected:
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
};

}  // namespace cairn::live
