#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "block/capabilities/range_copier.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/iscsi/session.h"

namespace cairn::iscsi {

// A logical unit of a target as a disk.
class IscsiNode : public Node, public StorageUse, public RangeCopier {
 public:
  using Capabilities = CapabilityList<StorageUse, RangeCopier>;

  IscsiNode(Context& context, const Driver& driver, Target target, bool writable, std::string name);
  ~IscsiNode() override;

  // Logs in. On failure nothing is left open. Throws.
  Task<void> connect();
  const Unit& unit() const { return unit_; }

  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }
  // The target copies, where it can and both units have unique names.
  Task<bool> copy_range(Node& source, uint64_t source_offset, uint64_t offset,
                        uint64_t length) override;

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;

 private:
  Session& least_busy();
  void apply_limits();
  Task<void> perform(Command& command);

  const Target target_;
  const bool writable_;
  Unit unit_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::atomic<bool> can_same_{true};
  std::atomic<bool> can_copy_{true};
  std::atomic<bool> can_ask_provisioning_{true};
};

}  // namespace cairn::iscsi
