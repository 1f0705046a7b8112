#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/uuid.h"

// The DiskDescriptor.xml of a bundle directory, free of I/O. Source: the description that Virtuozzo
// publishes with its tool ploop; docs/formats/parallels.md lists the elements.
namespace cairn::parallels {

inline constexpr std::string_view kDescriptorName = "DiskDescriptor.xml";

// Whether a file that begins like this may be a descriptor.
bool looks_like_descriptor(std::string_view head);

// One state of a disk: what it does not have itself comes from its parent.
struct BundleImage {
  Uuid id;
  bool plain = false;  // the bytes of the disk; else a Parallels image
  std::string file;    // relative to the descriptor, or absolute
};

struct BundleShot {
  Uuid id;
  Uuid parent;  // null: there is none
};

// A range of the disk, from START to END, in sectors, and its images.
struct BundlePart {
  uint64_t start = 0;
  uint64_t end = 0;
  std::vector<BundleImage> images;
};

struct BundleDescriptor {
  uint64_t sectors = 0;
  uint64_t cluster_sectors = 0;
  std::vector<BundlePart> parts;  // in order, without gaps
  std::vector<BundleShot> shots;
  Uuid top;  // the state that is written

  // Throws kInvalid or kUnsupported for what is no XML or contradicts itself.
  static BundleDescriptor parse(std::string_view text);

  // The images of PART in the state WHICH, from the one without a parent on. Throws kNotFound.
  std::vector<BundleImage> chain(const Uuid& which, const BundlePart& part) const;
};

}  // namespace cairn::parallels
