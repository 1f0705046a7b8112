#include "protocol/vvfat/node.h"

#include <fmt/core.h>

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

// The first byte after everything that the disk holds.
uint64_t end_of_content(const Geometry& g, const std::vector<ClusterRun>& runs) {
  if (runs.empty()) return g.data_offset();
  return g.cluster_offset(runs.back().first + runs.back().count);
}

// The run that holds CLUSTER, or the first one after it.
std::vector<ClusterRun>::const_iterator run_at(const std::vector<ClusterRun>& runs,
                                               uint32_t cluster) {
  return std::partition_point(runs.begin(), runs.end(), [cluster](const ClusterRun& run) {
    return run.first + run.count <= cluster;
  });
}

}  // namespace

VvfatNode::VvfatNode(Context& context, const Driver& driver, std::unique_ptr<Snapshot> snapshot)
    : Node(context, driver), snapshot_(std::move(snapshot)), runs_(snapshot_->image.runs()) {
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
  if (!out.empty()) co_await run_blocking([&] { read_clusters(offset, out); });
}

void VvfatNode::read_clusters(uint64_t offset, MutableByteSpan out) {
  const std::shared_lock lock(places_);
  const Geometry& g = snapshot_->image.geometry();
  auto run =
      run_at(runs_, static_cast<uint32_t>((offset - g.data_offset()) / g.cluster_bytes() + 2));
  for (; !out.empty(); ++run) {
    // Between the runs there are zeroes.
    const uint64_t begin = run == runs_.end() ? UINT64_MAX : g.cluster_offset(run->first);
    const size_t gap = offset < begin ? std::min<uint64_t>(out.size(), begin - offset) : 0;
    zero(out.first(gap));
    offset += gap;
    out = out.subspan(gap);
    if (out.empty()) return;
    const uint64_t length = uint64_t{run->count} * g.cluster_bytes();
    const size_t part = std::min<uint64_t>(out.size(), length - (offset - begin));
    read_run(*run, offset - begin, out.first(part));
    offset += part;
    out = out.subspan(part);
  }
}

void VvfatNode::read_run(const ClusterRun& run, uint64_t within, MutableByteSpan out) {
  const uint64_t at = uint64_t{run.skip} * snapshot_->image.geometry().cluster_bytes() + within;
  if (snapshot_->tree.entries[run.entry].kind != Entry::Kind::kFolder) {
    read_file(run.entry, at, out);
    return;
  }
  const ByteSpan stored = snapshot_->image.directory(run.entry);
  const size_t there = at < stored.size() ? std::min<size_t>(out.size(), stored.size() - at) : 0;
  if (there != 0) std::memcpy(out.data(), stored.data() + at, there);
  zero(out.subspan(there));
}

const Entry* VvfatNode::file_at(uint32_t cluster) const {
  const auto run = run_at(runs_, cluster);
  if (run == runs_.end() || run->first > cluster) return nullptr;
  const Entry& entry = snapshot_->tree.entries[run->entry];
  return entry.kind == Entry::Kind::kFolder ? nullptr : &entry;
}

void VvfatNode::follow(Tree& tree, const std::function<void()>& change) {
  std::vector<ClusterRun> runs;
  for (uint32_t i = 0; i < tree.entries.size(); ++i) {
    if (tree.entries[i].kind == Entry::Kind::kFolder) continue;
    uint32_t skip = 0;
    for (const ClusterPiece& piece : tree.entries[i].chain()) {
      runs.push_back({.first = piece.first, .count = piece.count, .entry = i, .skip = skip});
      skip += piece.count;
    }
  }
  std::sort(runs.begin(), runs.end(),
            [](const ClusterRun& a, const ClusterRun& b) { return a.first < b.first; });
  const std::unique_lock lock(places_);
  change();
  snapshot_->tree = std::move(tree);
  runs_ = std::move(runs);
  reported_.clear();
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
  const auto status = fd ? platform::status_of(fd.get()) : std::nullopt;
  if (!fd) {
    report(index, "reads as zeroes: " + Error::system(errno).cause());
  } else if (!status || !status->is_regular()) {
    report(index, "reads as zeroes: it is not a file any more");
  } else {
    if (FileStamp::of(*status) != entry.stamp)
      report(index, "changed since the directory was opened");
    while (done < wanted) {
      const ssize_t got =
          platform::read_at(fd.get(), out.data() + done, wanted - done, offset + done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        throw Error::system(errno,
                            fmt::format("{}: reading at {}",
                                        snapshot_->folder.full_path(snapshot_->tree.path_of(index)),
                                        offset + done));
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
  }
  zero(out.subspan(done));
}

void VvfatNode::report(uint32_t entry, const std::string& what) {
  const std::lock_guard lock(reporting_);
  if (reported_.size() >= kMaxReports || !reported_.insert(entry).second) return;
  context().warn(fmt::format("vvfat: {} {}",
                             snapshot_->folder.full_path(snapshot_->tree.path_of(entry)), what));
}

Task<Extent> VvfatNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent;
  extent.length = max;
  extent.allocated = true;
  extent.data = true;
  const std::shared_lock lock(places_);
  const uint64_t end = end_of_content(snapshot_->image.geometry(), runs_);
  if (context().profile.find_zeroes) {
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
