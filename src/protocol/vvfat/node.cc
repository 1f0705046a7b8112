#include "protocol/vvfat/node.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "async/runtime.h"
#include "base/arith.h"
#include "block/context.h"

namespace cairn::vvfat {
namespace {

constexpr size_t kMaxReports = 20;

void zero(MutableByteSpan out) {
  if (!out.empty()) std::memset(out.data(), 0, out.size());
}

// The first byte behind everything that the disk holds.
uint64_t end_of_content(const Image& image) {
  const Geometry& g = image.geometry();
  if (image.runs().empty()) return g.data_offset();
  const ClusterRun& last = image.runs().back();
  return g.cluster_offset(last.first + last.count);
}

}  // namespace

VvfatNode::VvfatNode(Context& context, const Driver& driver, std::unique_ptr<Snapshot> snapshot)
    : Node(context, driver), snapshot_(std::move(snapshot)) {
  set_length(snapshot_->image.geometry().disk_bytes());
  set_unbounded(false);
  mutable_limits().request_alignment = kSectorBytes;
}

Task<std::optional<uint64_t>> VvfatNode::allocated_bytes() { co_return std::nullopt; }

Task<void> VvfatNode::do_read(uint64_t offset, MutableByteSpan out) {
  const Image& image = snapshot_->image;
  const uint64_t data = image.geometry().data_offset();
  if (offset < data) {
    const size_t front = std::min<uint64_t>(out.size(), data - offset);
    image.read_front(offset, out.first(front));
    offset += front;
    out = out.subspan(front);
  }
  const uint64_t end = end_of_content(image);
  const size_t held = offset < end ? std::min<uint64_t>(out.size(), end - offset) : 0;
  zero(out.subspan(held));
  if (held == 0) co_return;
  co_await run_blocking([&] { read_clusters(offset, out.first(held)); });
}

void VvfatNode::read_clusters(uint64_t offset, MutableByteSpan out) {
  const Image& image = snapshot_->image;
  const Geometry& g = image.geometry();
  const auto cluster = static_cast<uint32_t>((offset - g.data_offset()) / g.cluster_bytes() + 2);
  auto run = std::upper_bound(image.runs().begin(), image.runs().end(), cluster,
                              [](uint32_t n, const ClusterRun& r) { return n < r.first; });
  for (--run; !out.empty(); ++run) {
    const uint64_t within = offset - g.cluster_offset(run->first);
    const uint64_t length = uint64_t{run->count} * g.cluster_bytes();
    const size_t part = std::min<uint64_t>(out.size(), length - within);
    const MutableByteSpan target = out.first(part);
    if (snapshot_->tree.entries[run->entry].kind == Entry::Kind::kFolder) {
      const ByteSpan stored = image.directory(run->entry);
      const size_t there =
          within < stored.size() ? std::min<size_t>(part, stored.size() - within) : 0;
      if (there != 0) std::memcpy(target.data(), stored.data() + within, there);
      zero(target.subspan(there));
    } else {
      read_file(run->entry, within, target);
    }
    offset += part;
    out = out.subspan(part);
  }
}

// Of the file that is ENTRY, from OFFSET on.
void VvfatNode::read_file(uint32_t index, uint64_t offset, MutableByteSpan out) {
  const Entry& entry = snapshot_->tree.entries[index];
  const size_t wanted =
      offset < entry.bytes() ? std::min<uint64_t>(out.size(), entry.bytes() - offset) : 0;
  size_t done = 0;
  const OwnFd fd = snapshot_->folder.open(
      snapshot_->tree.path_of(index), O_RDONLY | O_NONBLOCK | O_NOCTTY,
      entry.linked ? HostFolder::Links::kFollow : HostFolder::Links::kRefuse);
  struct stat status = {};
  if (!fd) {
    report(index, "reads as zeroes: " + Error::system(errno).cause());
  } else if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    report(index, "reads as zeroes: it is no file any more");
  } else {
    if (FileStamp::of(status) != entry.stamp) report(index, "changed since the folder was opened");
    while (done < wanted) {
      const ssize_t got =
          ::pread(fd.get(), out.data() + done, wanted - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        throw Error::system(errno, snapshot_->folder.full_path(snapshot_->tree.path_of(index)) +
                                       ": reading at " + std::to_string(offset + done));
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
  }
  zero(out.subspan(done));
}

void VvfatNode::report(uint32_t entry, const std::string& what) {
  const std::lock_guard lock(reporting_);
  if (reported_.size() >= kMaxReports || !reported_.insert(entry).second) return;
  if (context().warn)
    context().warn("vvfat: " + snapshot_->folder.full_path(snapshot_->tree.path_of(entry)) + " " +
                   what);
}

Task<Extent> VvfatNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent;
  extent.length = max;
  extent.allocated = true;
  extent.data = true;
  const uint64_t end = end_of_content(snapshot_->image);
  // QEMU takes all of the disk for data.
  if (context().beyond_qemu) {
    if (offset < end) {
      extent.length = std::min(max, end - offset);
    } else {
      extent.data = false;
      extent.zero = true;
    }
  }
  co_return extent;
}

}  // namespace cairn::vvfat
