#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "block/node.h"
#include "protocol/vvfat/host_folder.h"
#include "protocol/vvfat/image.h"
#include "protocol/vvfat/tree.h"

namespace cairn::vvfat {

// What a folder looked like when it was opened.
struct Snapshot {
  HostFolder folder;
  Tree tree;
  Image image;
};

// The disk. Its structure stays as it was when the folder was read; the bytes of files are read
// from the host when they are asked for. What a file lost meanwhile reads as zeroes, and a file
// that became another one is told of, once.
class VvfatNode : public Node {
 public:
  VvfatNode(Context& context, const Driver& driver, std::unique_ptr<Snapshot> snapshot);

  void set_name(std::string name) { set_filename(std::move(name)); }
  Task<std::optional<uint64_t>> allocated_bytes() override;
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  bool reports_cluster_bytes() const override { return false; }

 protected:
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;

 private:
  void read_clusters(uint64_t offset, MutableByteSpan out);
  void read_file(uint32_t entry, uint64_t offset, MutableByteSpan out);
  void report(uint32_t entry, const std::string& what);

  std::unique_ptr<Snapshot> snapshot_;
  std::mutex reporting_;
  std::unordered_set<uint32_t> reported_;  // entries of the tree
};

}  // namespace cairn::vvfat
