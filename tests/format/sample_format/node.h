// src/format/sample: a small format of its own, the example of docs/adding-a-driver.md. layout.h
// holds the header and the table as pure types; node.h is the open image; driver.cc registers the
// format. May include src/block and below.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "block/capabilities/checkable.h"
#include "block/format_node.h"
#include "block/open.h"
#include "block/table_cache.h"
#include "format/sample/layout.h"

namespace cairn {

// An open image.
//
// What a crash may leave behind: places that no entry names, which are free.
//  1. Data is written and flushed before the part of the table that points to it is written.
//  2. A place that was given up is given to others only after that part of the table is flushed.
class SampleNode : public FormatNode, public Checkable {
 public:
  using Capabilities = FormatCapabilities<Checkable>;

  SampleNode(Context& context, const Driver& driver, NodePtr file);

  // Reads and checks the header; for writing also the table. Throws.
  Task<void> load(OpenContext& request);
  Task<CheckResult> check(CheckRequest request) override;

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant place) override;
  Task<void> abandon(Grant place) override;
  Task<uint64_t> zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) override;
  Task<void> discard_mapped(uint64_t offset, uint64_t length) override;
  Task<void> flush_mapped() override;
  Task<void> do_resize(ResizeRequest request) override;

 private:
  Task<uint32_t> entry(uint64_t block);
  Task<void> set_entry(uint64_t block, uint32_t value);
  Task<void> give_up(uint64_t block);
  uint32_t take_place();

  sample::Header header_;
  Node* file_;
  std::unique_ptr<TableCache> table_;

  std::mutex places_mutex_;  // guards what follows
  uint32_t next_ = 1;        // after the last place of the file
  std::vector<uint32_t> free_;
  std::vector<uint32_t> given_up_;  // free once the table is on disk
};

}  // namespace cairn
