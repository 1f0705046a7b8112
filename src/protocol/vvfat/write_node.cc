#include "protocol/vvfat/write_node.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/arith.h"
#include "block/context.h"
#include "block/overlay.h"
#include "protocol/vvfat/commit.h"
#include "protocol/vvfat/guest.h"

namespace cairn::vvfat {
namespace {

constexpr size_t kPartBytes = size_t{1} << 20;
constexpr auto kQuiet = std::chrono::seconds(2);
// The byte of a boot sector in which a guest notes that it has the volume mounted.
constexpr size_t kStateByte = 37;
constexpr size_t kStateByte32 = 65;

// The structure of the disk does not follow what happens to the directory: it must be in the
// overlay.
Task<void> copy_directories(const VvfatNode& base, NodePtr overlay) {
  const Image& image = base.snapshot().image;
  const Geometry& g = image.geometry();
  for (const ClusterRun& run : image.runs()) {
    if (base.snapshot().tree.entries[run.entry].kind != Entry::Kind::kFolder) continue;
    const ByteSpan stored = image.directory(run.entry);
    std::vector<std::byte> content(uint64_t{run.count} * g.cluster_bytes());
    std::copy(stored.begin(), stored.end(), content.begin());
    co_await overlay->write(g.cluster_offset(run.first), content);
  }
}

void write_at(int fd, uint64_t offset, ByteSpan in, const std::string& path) {
  while (!in.empty()) {
    const ssize_t done = platform::write_at(fd, in.data(), in.size(), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw Error::system(errno, "Could not write to " + path);
    offset += static_cast<uint64_t>(done);
    in = in.subspan(static_cast<size_t>(done));
  }
}

}  // namespace

Task<NodePtr> VvfatWriteNode::open(std::shared_ptr<VvfatNode> base, bool strict) {
  NodePtr overlay = co_await lay_over(base->context(), base);
  std::exception_ptr error;
  try {
    co_await copy_directories(*base, overlay);
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    co_await overlay->close();
    std::rethrow_exception(error);
  }
  auto node = std::make_shared<VvfatWriteNode>(std::move(base), std::move(overlay), strict);
  Worker& home = Worker::current()->home();
  node->watch_ = std::make_shared<Watch>(home);
  spawn_detached_on(home, commit_when_quiet(node, node->watch_));
  co_return node;
}

VvfatWriteNode::VvfatWriteNode(std::shared_ptr<VvfatNode> base, NodePtr overlay, bool strict)
    : Node(base->context(), base->driver()),
      base_(std::move(base)),
      overlay_(std::move(overlay)),
      geometry_(base_->snapshot().image.geometry()),
      strict_(strict),
      written_(uint64_t{geometry_.clusters} + 2) {
  set_length(base_->length());
  set_unbounded(false);
  set_read_only(false);
  set_filename(base_->filename());
  mutable_limits().request_alignment = kSectorBytes;
}

void VvfatWriteNode::warn(const std::string& line) const { context().warn(line); }

Task<std::optional<uint64_t>> VvfatWriteNode::allocated_bytes() { co_return std::nullopt; }

Task<void> VvfatWriteNode::do_read(uint64_t offset, MutableByteSpan out) {
  co_await overlay_->read(offset, out);
}

Task<Extent> VvfatWriteNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await overlay_->extent_at(offset, max);
  extent.allocated = true;
  extent.host = nullptr;
  extent.depth = 0;
  co_return extent;
}

Task<void> VvfatWriteNode::do_write(uint64_t offset, ByteSpan in, WriteFlags) {
  const auto turn = co_await turn_.shared();
  while (!in.empty()) {
    const size_t part = std::min(in.size(), kPartBytes);
    co_await write_part(offset, in.first(part));
    offset += part;
    in = in.subspan(part);
  }
}

// Bytes that are there already are not written: so a whole disk may be written back of which a part
// must not change.
Task<void> VvfatWriteNode::write_part(uint64_t offset, ByteSpan in) {
  std::vector<std::byte> before(in.size());
  co_await overlay_->read(offset, before);
  if (std::memcmp(before.data(), in.data(), in.size()) == 0) co_return;
  admit(offset, before, in);
  co_await overlay_->write(offset, in);
}

// Notes what will be written; throws when it may not be.
void VvfatWriteNode::admit(uint64_t offset, ByteSpan before, ByteSpan in) {
  const Geometry& g = geometry_;
  const std::lock_guard lock(marks_);
  for (size_t at = 0; at < in.size(); at += kSectorBytes) {
    const ByteSpan old = before.subspan(at, kSectorBytes);
    const ByteSpan fresh = in.subspan(at, kSectorBytes);
    if (std::memcmp(old.data(), fresh.data(), kSectorBytes) == 0) continue;
    const uint64_t place = offset + at;
    if (place < g.fat_offset())
      admit_sector(place / kSectorBytes, old, fresh);
    else if (place >= g.data_offset())
      admit_cluster(static_cast<uint32_t>((place - g.data_offset()) / g.cluster_bytes() + 2));
  }
  changed_ = true;
  ++writes_;
}

void VvfatWriteNode::admit_sector(uint64_t sector, ByteSpan before, ByteSpan in) const {
  const Geometry& g = geometry_;
  const bool large = g.type == FatType::k32;
  const uint64_t within = sector - g.start_sector;
  if (sector >= g.start_sector && large && (within == 1 || within == 7)) return;  // what is free
  if (sector >= g.start_sector && (within == 0 || (large && within == 6))) {
    const size_t state = large ? kStateByte32 : kStateByte;
    if (std::memcmp(before.data(), in.data(), state) == 0 &&
        std::memcmp(before.data() + state + 1, in.data() + state + 1, kSectorBytes - state - 1) ==
            0)
      return;
    warn("Tried to write to protected bootsector");
  }
  throw Error::system(EPERM);
}

void VvfatWriteNode::admit_cluster(uint32_t cluster) {
  if (cluster >= written_.size()) return;
  const Entry* file = base_->file_at(cluster);
  if (file != nullptr && (file->write_protected || file->linked)) {
    const Snapshot& snapshot = base_->snapshot();
    const auto index = static_cast<uint32_t>(file - snapshot.tree.entries.data());
    warn("Tried to write to write-protected file " +
         snapshot.folder.full_path(snapshot.tree.path_of(index)));
    throw Error::system(EPERM);
  }
  if (!written_[cluster]) ++written_clusters_;
  written_[cluster] = true;
}

// While a commit has the turn.
bool VvfatWriteNode::written(uint32_t cluster) const {
  return cluster < written_.size() && written_[cluster];
}

Task<void> VvfatWriteNode::do_flush() { co_await commit(); }

Task<void> VvfatWriteNode::commit() {
  const auto turn = co_await turn_.exclusive();
  if (!changed_) co_return;
  GuestReading reading = co_await read_guest(geometry_, overlay_);
  trouble_ = reading.trouble;
  if (!trouble_.empty()) co_return;
  const Snapshot& host = base_->snapshot();
  Tree& now = reading.tree;
  Changes changes = compare(host.tree, now, [this](uint32_t cluster) { return written(cluster); });
  if (changes.any) {
    refuse_what_may_not_be(host.folder, host.tree, now, changes);
    Commit work(host.folder, host.tree, now, changes,
                [this](std::string_view line) { warn(std::string(line)); });
    co_await run_blocking([&] { work.check_host(); });
    co_await stage_contents(work, now);
    co_await run_blocking([&] { base_->follow(now, [&] { work.apply(); }); });
  }
  complaint_.clear();
  const std::lock_guard lock(marks_);
  written_.assign(written_.size(), false);
  written_clusters_ = 0;
  changed_ = false;
}

Task<void> VvfatWriteNode::stage_contents(Commit& work, const Tree& now) {
  for (uint32_t i = 1; i < now.entries.size(); ++i)
    if (work.needs_content(i)) co_await stage_one(work, now, i);
}

Task<void> VvfatWriteNode::stage_one(Commit& work, const Tree& now, uint32_t index) {
  OwnFd file;
  co_await run_blocking([&] { file = work.stage(index); });
  const std::string path = base_->snapshot().folder.full_path(now.path_of(index));
  const uint64_t bytes = now.entries[index].bytes();
  const std::vector<ClusterPiece> chain = now.entries[index].chain();
  std::vector<std::byte> buffer(std::min<uint64_t>(kPartBytes, bytes));
  uint64_t done = 0;
  for (const ClusterPiece& piece : chain) {
    const uint64_t begin = geometry_.cluster_offset(piece.first);
    const uint64_t length =
        std::min(bytes - done, uint64_t{piece.count} * geometry_.cluster_bytes());
    for (uint64_t at = 0; at < length;) {
      const size_t part = std::min<uint64_t>(buffer.size(), length - at);
      const MutableByteSpan span = MutableByteSpan(buffer).first(part);
      co_await overlay_->read(begin + at, span);
      if (!is_zero(span)) co_await run_blocking([&] { write_at(file.get(), done, span, path); });
      at += part;
      done += part;
    }
  }
  co_await run_blocking([&] {
    if (platform::set_length(file.get(), bytes) != 0) throw Error::system(errno, path);
    work.staged(index, file);
  });
}

// Guests that never flush are served too.
Task<void> VvfatWriteNode::commit_when_quiet(std::weak_ptr<Node> node, std::shared_ptr<Watch> own) {
  uint64_t seen = 0;
  while (!own->nap.woken()) {
    co_await own->nap.sleep_for(kQuiet);
    const NodePtr alive = node.lock();
    if (!alive || own->nap.woken()) break;
    auto& disk = static_cast<VvfatWriteNode&>(*alive);
    bool quiet = false;
    {
      const std::lock_guard lock(disk.marks_);
      quiet = disk.changed_ && disk.writes_ == seen;
      seen = disk.writes_;
    }
    if (!quiet) continue;
    try {
      co_await disk.commit();
    } catch (const Error& error) {
      if (disk.complaint_ != error.message()) disk.warn("vvfat: " + error.message());
      disk.complaint_ = error.message();
    }
  }
  own->ended.release();
}

Task<void> VvfatWriteNode::end_watch() {
  const std::shared_ptr<Watch> watch = std::exchange(watch_, nullptr);
  if (!watch) co_return;
  co_await watch->nap.wake();
  co_await watch->ended.acquire();
}

Task<void> VvfatWriteNode::do_close() {
  co_await end_watch();
  std::exception_ptr error;
  std::string lost;
  try {
    co_await commit();
    if (changed_) lost = trouble_;
  } catch (const Error& refused) {
    lost = refused.message();
  }
  if (!lost.empty())
    lost = fmt::format("{}: {} clusters that a guest wrote are lost, for {}",
                       base_->snapshot().folder.path(), written_clusters_, lost);
  try {
    co_await overlay_->close();
  } catch (...) {
    error = std::current_exception();
  }
  if (error) std::rethrow_exception(error);
  if (lost.empty()) co_return;
  if (strict_) throw Error(ErrorKind::kIo, lost);
  warn("vvfat: " + lost);
}

}  // namespace cairn::vvfat
