#include <fmt/core.h>

#include <unordered_set>

#include "base/arith.h"
#include "block/context.h"
#include "format/parallels/node.h"

namespace cairn {

using namespace parallels;

namespace {
// The extension takes a whole cluster, which is read at once.
constexpr uint64_t kMaxExtensionBytes = 64 << 20;
constexpr uint64_t kPieceBytes = 1 << 20;
}  // namespace

// Who only reads gets the bitmaps, or QEMU's error. Who writes does not keep them true: with the
// first change they are given up, and so is what cannot be understood unless it says that it must
// not be lost.
Task<void> ParallelsNode::load_extension() {
  const uint64_t place = header_.ext_off * kSector;
  Extension extension;
  std::exception_ptr error;
  try {
    if (cluster() > kMaxExtensionBytes)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("Format Extension of {} bytes is larger than 64 MiB", cluster()));
    if (place + cluster() > align_up(file_->length(), kSector))
      throw Error(
          ErrorKind::kInvalid,
          fmt::format(
              "Failed to read Format Extension cluster: it ends at {}, past the end of the file",
              place + cluster()));
    std::vector<std::byte> bytes(cluster());
    try {
      co_await file_->read(place, bytes);
    } catch (Error& caught) {
      throw caught.context("Failed to read Format Extension cluster");
    }
    extension = Extension::decode(bytes, header_, !read_only());
  } catch (Error& caught) {
    if (read_only() || caught.kind() == ErrorKind::kUnsupported)
      error = std::make_exception_ptr(caught);
    extension_fault_ = caught.message();
  }
  if (error) std::rethrow_exception(error);
  if (!read_only())
    context().warn("Format Extension ignored in RW mode" +
                   (extension_fault_.empty() ? std::string() : ": " + extension_fault_));
  if (!extension_fault_.empty()) co_return;
  extension_.push_back({place, cluster()});
  const uint64_t file_end = align_up(file_->length(), kSector);
  for (const BitmapFeature& feature : extension.bitmaps) {
    for (const uint64_t sector : feature.table)
      if (sector > 1 && sector < kMaxSize / kSector && sector * kSector + cluster() <= file_end)
        extension_.push_back({sector * kSector, cluster()});
    if (read_only()) co_await load_bitmap(feature);
  }
}

Task<void> ParallelsNode::load_bitmap(const BitmapFeature& feature) {
  auto bitmap = std::make_shared<DirtyBitmap>(feature.id.text(), length(), feature.granularity);
  std::unordered_set<uint64_t> seen;
  std::vector<std::byte> piece;
  const uint64_t file_end = align_up(file_->length(), kSector);
  const uint64_t total = bitmap->serialized_bytes();
  for (size_t i = 0; i < feature.table.size(); ++i) {
    const uint64_t first = i * cluster();
    const uint64_t bytes = std::min(cluster(), align_up(total, 8) - first);
    const uint64_t sector = feature.table[i];
    if (sector == 1) bitmap->deserialize_ones(first, bytes);
    if (sector <= 1) continue;
    // A sound image has every cluster once; so no more is read than the file has room for.
    const auto refuse = [&](const std::string& why) {
      throw Error(ErrorKind::kCorrupt,
                  fmt::format("Failed to read bitmap data cluster: bitmap {}, sector {}: {}",
                              bitmap->name(), sector, why));
    };
    if (sector >= kMaxSize / kSector || sector * kSector + cluster() > file_end)
      refuse("past the end of the file");
    if (!seen.insert(sector).second) refuse("used twice");
    for (uint64_t at = 0; at < bytes;) {
      piece.resize(std::min(kPieceBytes, bytes - at));
      co_await file_->read(sector * kSector + at, piece);
      bitmap->deserialize(first + at, piece);
      at += piece.size();
    }
  }
  bitmap->set_persistent(true);
  bitmap->set_enabled(false);
  bitmap->set_read_only(true);
  bitmap->set_unchanged();
  bitmaps().add(std::move(bitmap));
}

}  // namespace cairn
