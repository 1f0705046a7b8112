// src/protocol/vvfat: a directory of the host, shown as a disk with a FAT file system. layout.h
// holds the structures of FAT as pure types, names.h turns names of the host into those of FAT and
// back, host_folder.h reaches what is in the directory and nothing else, tree.h reads it, image.h
// lays it out on the disk, node.h is the open disk; driver.cc registers it. What a guest writes:
// write_node.h takes it, guest.h reads it as a file system, changes.h finds out what was done, and
// commit.h does that to the directory. May include src/block and below.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_set>
#include <vector>

#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/vvfat/host_folder.h"
#include "protocol/vvfat/image.h"
#include "protocol/vvfat/tree.h"

namespace cairn::vvfat {

// What a directory looked like when it was opened.
struct Snapshot {
  HostFolder folder;
  Tree tree;
  Image image;
};

// The disk. Its structure stays as it was when the directory was read; the bytes of files are read
// from the host when they are asked for. What a file lost meanwhile reads as zeroes, and a file
// that became another one is reported, once.
class VvfatNode : public Node, public ImageInfo, public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse>;

  VvfatNode(Context& context, const Driver& driver, std::unique_ptr<Snapshot> snapshot);

  const Snapshot& snapshot() const { return *snapshot_; }
  // The file to which CLUSTER belongs; null when there is none. Until follow() is called.
  const Entry* file_at(uint32_t cluster) const;
  // Calls CHANGE, which makes the directory what TREE says, while no request reads; from then on
  // the bytes of files are found by TREE, and directories and the structure are nowhere: those must
  // be in a layer above. What CHANGE throws leaves all as it was. Blocks.
  void follow(Tree& tree, const std::function<void()>& change);

  void set_name(std::string name) { set_filename(std::move(name)); }
  Task<std::optional<uint64_t>> allocated_bytes() override;
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  bool reports_cluster_bytes() const override { return false; }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;

 private:
  void read_clusters(uint64_t offset, MutableByteSpan out);
  void read_run(const ClusterRun& run, uint64_t within, MutableByteSpan out);
  void read_file(uint32_t entry, uint64_t offset, MutableByteSpan out);
  void report(uint32_t entry, const std::string& what);

  std::unique_ptr<Snapshot> snapshot_;
  mutable std::shared_mutex places_;  // the tree and:
  std::vector<ClusterRun> runs_;      // ascending
  std::mutex reporting_;
  std::unordered_set<uint32_t> reported_;  // entries of the tree
};

}  // namespace cairn::vvfat
