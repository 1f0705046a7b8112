#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/vvfat/layout.h"
#include "protocol/vvfat/tree.h"

namespace cairn::vvfat {

struct ImageOptions {
  bool show_protection = false;  // what must not be written has the attribute for that
  unsigned fat_type = 0;         // 12, 16, 32; 0: what suits the disk
  bool floppy = false;
  std::string label = "QEMU VVFAT";
  // FAT32 only; nothing: as large as the directory asks for.
  std::optional<uint64_t> disk_bytes;
  std::optional<uint64_t> cluster_bytes;
};

// Throws kInvalid for combinations that make no file system. The size of a FAT32 follows from TREE.
Geometry choose_geometry(const ImageOptions& options, const Tree& tree);

// COUNT clusters from FIRST on hold a file or directory.
struct ClusterRun {
  uint32_t first = 0;
  uint32_t count = 0;
  uint32_t entry = 0;  // of Tree::entries
  uint32_t skip = 0;   // clusters of the file before these
};

// Everything on the disk but the bytes of files, as it was when the directory was read. Does not
// change afterwards; any number of threads may read.
class Image {
 public:
  // Gives the entries of TREE their clusters. Throws with QEMU's words when they do not fit.
  Image(const Geometry& geometry, Tree& tree, const std::string& folder,
        const ImageOptions& options, const std::function<void(std::string_view)>& warn);

  const Geometry& geometry() const { return geometry_; }
  // Every file and directory that has clusters, in their order; without gaps from the first one on.
  const std::vector<ClusterRun>& runs() const { return runs_; }
  // What is before the clusters: OUT must not reach beyond Geometry::data_offset().
  void read_front(uint64_t offset, MutableByteSpan out) const;
  // The entries, as FAT has them, of the directory that is entry ENTRY; zeroes follow it up to the
  // end of its cluster.
  ByteSpan directory(uint32_t entry) const;

 private:
  void place(Tree& tree, const std::string& folder,
             const std::function<void(std::string_view)>& warn);
  void write_directories(const Tree& tree, const ImageOptions& options);
  void read_reserved(uint64_t offset, MutableByteSpan out) const;
  void read_table(uint64_t offset, MutableByteSpan out) const;

  Geometry geometry_;
  std::vector<ClusterRun> runs_;
  std::vector<std::pair<uint64_t, Sector>> reserved_;  // by sector; others are zero
  std::vector<std::byte> directories_;
  // Of the entries that are directories: where in directories_ it begins, and how long it is.
  std::vector<std::pair<size_t, size_t>> places_;
};

}  // namespace cairn::vvfat
