#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "format/qed/node.h"

namespace cairn {

using namespace qed;

namespace {
// L2 tables are read and written in pieces of this.
constexpr uint32_t kBlockBytes = 4096;
constexpr size_t kBlocks = 8192;
}  // namespace

Task<void> QedNode::load(OpenContext& request) {
  begin_opening(request.flags);
  std::vector<std::byte> bytes(kHeaderBytes);
  try {
    co_await file_->read(0, bytes);
  } catch (Error& error) {
    throw error.context("Failed to read QED header");
  }
  header_ = Header::decode(bytes, file_->length());
  co_await read_backing_name();
  set_length(header_.size);
  set_unit(cluster());
  if (!read_only() && header_.autoclear != 0) {
    // None is known: what they promise we would break.
    header_.autoclear = 0;
    try {
      co_await write_header();
      co_await file_->flush();
    } catch (Error& error) {
      throw error.context("Failed to update header");
    }
  }
  marked_ = (header_.features & kNeedCheck) != 0;
  keep_mark_ = marked_;
  if (!request.flags.metadata_only) {
    make_cache();
    // A cluster that the file cuts may belong to the disk.
    end_ = align_up(file_->length(), cluster());
    if (file_->reads_zero_when_created()) virgin_ = file_->length();
    const uint64_t count = div_ceil(header_.size, header_.table_range());
    l1_ = std::make_unique<std::atomic<uint64_t>[]>(count);
    try {
      co_await read_l1(0, count);
    } catch (Error& error) {
      throw error.context("Failed to read L1 table");
    }
  }
  const std::string format = backing_format();
  NodePtr backing = co_await request.open_backing(backing_name_, format);
  if (backing) add_child("backing", std::move(backing), ChildRole::kBacking);
  if (marked_ && !read_only() && !request.flags.for_check) co_await repair_at_opening();
  end_opening();
}

void QedNode::make_cache() {
  l2_ = std::make_unique<TableCache>(this, *file_, "l2", kBlockBytes, kBlocks);
}

std::string QedNode::backing_format() const {
  return !backing_name_.empty() && (header_.features & kBackingRaw) != 0 ? "raw" : "";
}

Task<void> QedNode::read_backing_name() {
  if ((header_.features & kBackingFile) == 0 || header_.backing_bytes == 0) co_return;
  if (header_.backing_bytes > kMaxBackingName)
    throw Error(ErrorKind::kInvalid, "Failed to read backing filename");
  std::vector<std::byte> bytes(header_.backing_bytes);
  try {
    co_await file_->read(header_.backing_offset, bytes);
  } catch (Error& error) {
    throw error.context("Failed to read backing filename");
  }
  backing_name_ = load_text(bytes, 0, bytes.size());
}

// Adds COUNT entries from FROM on to what is in memory.
Task<void> QedNode::read_l1(uint64_t from, uint64_t count) {
  std::vector<std::byte> bytes(count * 8);
  if (!bytes.empty()) co_await read_table(*file_, header_.l1_offset + from * 8, bytes);
  for (uint64_t i = 0; i < count; ++i) {
    const auto entry = load_le<uint64_t>(bytes, i * 8);
    l1_[from + i].store(entry, std::memory_order_release);
    if (!read_only() && header_.valid_table(entry, file_->length())) tables_.push_back(entry);
  }
  std::sort(tables_.begin(), tables_.end());
  l1_count_ = from + count;
}

Task<void> QedNode::repair_at_opening() {
  CheckRequest request;
  request.repair = CheckRequest::Repair::kAll;
  bool failed = false;
  try {
    const CheckResult result = co_await check(std::move(request));
    failed = result.check_errors != 0;
  } catch (Error& error) {
    throw error.context("Image corrupted");
  }
  if (failed)
    throw Error(ErrorKind::kIo, "Image corrupted").hint("A table of the image cannot be read.");
}

// --- changes of the header: all of it is in one sector ---

Task<void> QedNode::write_header() {
  std::vector<std::byte> bytes(kHeaderBytes);
  header_.encode(bytes);
  co_await file_->write(0, bytes);
}

Task<void> QedNode::mark_need_check() {
  if (marked_.load(std::memory_order_acquire)) co_return;
  if (backing() != nullptr || !backing_name_.empty()) co_return;
  Mutex::Guard guard = co_await mark_mutex_.lock();
  if (marked_.load(std::memory_order_acquire)) co_return;
  header_.features |= kNeedCheck;
  co_await write_header();
  co_await file_->flush();
  marked_.store(true, std::memory_order_release);
}

Task<void> QedNode::clear_need_check() {
  if (!marked_) co_return;
  co_await flush_mapped();
  header_.features &= ~kNeedCheck;
  co_await write_header();
  co_await file_->flush();
  marked_ = false;
}

Task<void> QedNode::do_close() {
  // Tables are written even where no mark has to go: an image with a backing file has none, and
  // with cache=unsafe nothing was flushed before.
  if (!read_only() && l2_) co_await flush_mapped();
  if (!read_only() && l2_ && !keep_mark_) co_await clear_need_check();
  co_await Node::do_close();
}

Task<void> QedNode::do_resize(ResizeRequest request) {
  if (request.preallocation != Preallocation::kOff)
    throw Error(ErrorKind::kUnsupported, "Unsupported preallocation mode '" +
                                             std::string(to_string(request.preallocation)) + "'");
  if (request.length % 512 != 0 || request.length > header_.max_size())
    throw Error(ErrorKind::kInvalid, "Invalid image size specified");
  if (request.length < length())
    throw Error(ErrorKind::kUnsupported, "Shrinking images is currently not supported");
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  const uint64_t count = div_ceil(request.length, header_.table_range());
  if (count > l1_count_) {
    auto larger = std::make_unique<std::atomic<uint64_t>[]>(count);
    for (uint64_t i = 0; i < l1_count_; ++i) larger[i] = l1_[i].load();
    l1_ = std::move(larger);
    co_await read_l1(l1_count_, count - l1_count_);
  }
  const uint64_t before = header_.size;
  header_.size = request.length;
  try {
    co_await write_header();
    co_await file_->flush();
  } catch (Error& error) {
    header_.size = before;
    throw error.context("Failed to update the image size");
  }
  set_length(request.length);
}

// Header and name change in one write, after a flush of everything that relies on the old name.
Task<void> QedNode::change_backing(std::string name, std::string format) {
  if (read_only()) throw Error::system(EACCES);
  // Bits that we do not know may belong to the name.
  if (header_.compat != 0) throw Error::system(ENOTSUP);
  if (name.size() > std::min<uint64_t>(header_.data_begin() - kHeaderBytes, kMaxBackingName))
    throw Error(ErrorKind::kNoSpace, "No space left in the file header");
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  Header header = header_;
  header.features &= ~(kBackingFile | kBackingRaw);
  header.backing_bytes = static_cast<uint32_t>(name.size());
  if (!name.empty()) {
    header.features |= kBackingFile;
    if (format == "raw") header.features |= kBackingRaw;
    header.backing_offset = kHeaderBytes;
  }
  std::vector<std::byte> bytes(kHeaderBytes + name.size());
  header.encode(bytes);
  store_text(bytes, kHeaderBytes, name);
  co_await file_->write(0, bytes);
  co_await file_->flush();
  header_ = header;
  backing_name_ = name;
}

}  // namespace cairn
