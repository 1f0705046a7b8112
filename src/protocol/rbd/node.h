#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/sync.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/rbd/extent_map.h"
#include "protocol/rbd/image.h"

namespace cairn::rbd {

// An image of a Ceph cluster as a disk.
class RbdNode : public Node,
                public ImageInfo,
                public SnapshotStore,
                public SnapshotView,
                public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, SnapshotStore, SnapshotView, StorageUse>;

  RbdNode(Context& context, const Driver& driver, Target target, std::string name);
  ~RbdNode() override;

  // Opens the image. On failure nothing is left open. Throws.
  Task<void> connect();
  // For specific_info(). Throws as reading.
  Task<void> learn_container();

  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }
  Value specific_info() const override;
  std::string_view specific_type() const override { return "rbd"; }

  bool reads_zero_when_created() const override { return !image_.target().encryption; }

  Task<void> learn_snapshots() override;
  Value snapshots_info() const override;
  Task<void> show_snapshot(std::string id, std::string name) override;
  Task<void> create_snapshot(std::string name) override;
  Task<void> apply_snapshot(std::string which) override;
  Task<void> delete_snapshot(std::string name) override;
  std::vector<SnapshotRecord> snapshots() const override;
  Task<void> show_state(std::optional<size_t> which) override;
  Task<void> record_snapshot(SnapshotRecord record) override;

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
  Task<void> grow_to(uint64_t length);
  Task<void> set_size(uint64_t length);
  Task<void> learn_extents();
  Task<void> learn_size();
  bool has_snapshot(const std::string& name) const;
  // Runs CALL with the image and one string, which live as long as CALL runs; WHAT is static.
  Task<void> call_with(std::string text, int (*call)(const OpenImage& image, const char* text),
                       const char* what, bool lengthy);
  Task<void> show(std::string name);

  Image image_;
  const std::shared_ptr<ExtentMap> extents_;
  Mutex learning_;
  Mutex sizing_;
  std::vector<SnapshotRecord> snapshots_;
  std::string container_;  // what the image holds the ciphertext of: "luks", "luks2"
};

}  // namespace cairn::rbd
