#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/runtime.h"
#include "async/sync.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "protocol/vvfat/changes.h"
#include "protocol/vvfat/node.h"

namespace cairn::vvfat {

// The disk, for a guest to write. What it writes is kept in a temporary overlay. On a flush, when
// nothing was written for a while, and on closing, the file system is read; when it is whole, what
// it says is done to the directory (see Commit). The overlay keeps its content, so that the guest
// sees what it has written whatever happens on the host.
class VvfatWriteNode : public Node, public ImageInfo, public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse>;

  // Over BASE, which nothing else uses. STRICT: closing fails when something that was written could
  // not be brought to the directory; else there is only a warning.
  static Task<NodePtr> open(std::shared_ptr<VvfatNode> base, bool strict);

  VvfatWriteNode(std::shared_ptr<VvfatNode> base, NodePtr overlay, bool strict);

  Task<std::optional<uint64_t>> allocated_bytes() override;
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  bool reports_cluster_bytes() const override { return false; }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_flush() override;
  Task<void> do_close() override;

 private:
  // Ends the wait for a quiet moment.
  struct Watch {
    explicit Watch(Worker& home) : nap(home) {}
    Nap nap;
    Semaphore ended{0};
  };

  void warn(const std::string& line) const;
  Task<void> write_part(uint64_t offset, ByteSpan in);
  void admit(uint64_t offset, ByteSpan before, ByteSpan in);
  void admit_sector(uint64_t sector, ByteSpan before, ByteSpan in) const;
  void admit_cluster(uint32_t cluster);
  bool written(uint32_t cluster) const;
  Task<void> commit();
  Task<void> stage_contents(class Commit& work, const Tree& now);
  Task<void> stage_one(class Commit& work, const Tree& now, uint32_t index);
  static Task<void> commit_when_quiet(std::weak_ptr<Node> node, std::shared_ptr<Watch> own);
  Task<void> end_watch();

  std::shared_ptr<VvfatNode> base_;
  NodePtr overlay_;
  const Geometry& geometry_;
  const bool strict_;
  RwLock turn_;                    // exclusive: a commit
  std::mutex marks_;               // for these:
  std::vector<bool> written_;      // clusters, since the last commit
  uint64_t written_clusters_ = 0;  // how many
  bool changed_ = false;           // anything was written since
  uint64_t writes_ = 0;
  std::string trouble_;    // why the last commit did nothing
  std::string complaint_;  // the refusal that was reported already
  std::shared_ptr<Watch> watch_;
};

}  // namespace cairn::vvfat
