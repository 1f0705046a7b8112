// Disks that an NBD server exports.
#pragma once

#include <mutex>
#include <span>
#include <vector>

#include "block/capabilities/image_info.h"
#include "block/capabilities/prefetcher.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/nbd/link.h"
#include "protocol/worker_links.h"

namespace cairn::nbd::client {

// An export as a disk. With a server that allows several connections each resident worker has its
// own; otherwise, and for guests, all requests go to one of them, its home. Reads past the end
// give zeroes: servers may export sizes that are no multiple of a sector.
class NbdNode : public Node, public ImageInfo, public StorageUse, public Prefetcher {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse, Prefetcher>;

  NbdNode(Context& context, const Driver& driver, Target target, bool writable, std::string name);
  ~NbdNode() override;

  // Connects. On failure nothing is left open. Throws.
  Task<void> connect();

  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  Task<void> prefetch_range(uint64_t offset, uint64_t length) override;

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
  struct KnownExtent {
    uint64_t begin, end;
    uint64_t flags;
  };

  void accept(const Agreement& agreed);
  void apply_limits(const Agreement& agreed);
  bool offers(uint16_t flag) const { return (first_.flags & flag) != 0; }
  Task<void> perform(Operation& operation);
  Task<void> change(Command command, uint16_t flags, uint64_t offset, uint64_t length,
                    uint64_t most);
  void forget_extents();
  bool known_extent(uint64_t offset, KnownExtent* found);
  std::vector<KnownExtent> whole_units(uint64_t offset, uint64_t length,
                                       std::span<const StatusExtent> said) const;
  Task<void> ask_extents(uint64_t offset, KnownExtent* found);

  const Target target_;
  const bool writable_;
  WorkerLinks<Link> links_;
  std::mutex first_mutex_;
  bool has_first_ = false;
  Agreement first_;  // not changed after the first connection
  std::mutex extents_mutex_;
  std::vector<KnownExtent> extents_;  // of the last answer, in order
  std::chrono::steady_clock::time_point extents_time_{};
  uint64_t extents_epoch_ = 0;  // counts what may have changed them
};

}  // namespace cairn::nbd::client
