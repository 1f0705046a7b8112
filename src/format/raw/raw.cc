// The bytes of a file as they are, or a window of them (options offset and size).

#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "base/arith.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/lockable.h"
#include "block/capabilities/prefetcher.h"
#include "block/capabilities/snapshot_store.h"
#include "block/debug.h"
#include "block/driver.h"
#include "block/open.h"

namespace cairn {
namespace {

constexpr uint64_t kSector = 512;

const OptionSchema kOpenOptions = {
    {"offset", OptionType::kSize, "0", "first byte of the image in its file"},
    {"size", OptionType::kSize, "", "size of the image, a multiple of 512"},
};
const OptionSchema kCreateOptions = {{"size", OptionType::kSize, "", "Virtual disk size"}};

class RawNode : public Node,
                public ImageInfo,
                public Prefetcher,
                public SnapshotView,
                public SnapshotStore {
 public:
  using Capabilities = CapabilityList<ImageInfo, Prefetcher>;

  RawNode(OpenContext& request, NodePtr file, uint64_t offset, std::optional<uint64_t> size)
      : Node(request.context, request.driver),
        offset_(offset),
        fixed_(size.has_value()),
        window_(offset != 0 || fixed_),
        follows_(window_ && !fixed_ && request.depth > 0),
        grows_(!fixed_ && request.flags.nodes != nullptr) {
    file_ = file.get();
    add_child("file", std::move(file), window_ ? ChildRole::kFile : ChildRole::kFiltered);
    if (!window_) set_filtered(file_);
    Limits& limits = mutable_limits();
    limits = file_->limits();
    limits.cluster_bytes = 0;
    set_length(size.value_or(align_up(file_->length() - offset, kSector)));
    // Below another format it may grow as its file does. In a graph it may get there later, by its
    // name; those that use it otherwise keep to its length themselves.
    set_unbounded((request.depth > 0 && !fixed_) || grows_);
  }

  std::optional<bool> dirty_flag() const override { return dirty_flag_of(*file_); }
  Task<void> prefetch_range(uint64_t offset, uint64_t length) override {
    return file_->prefetch(offset + offset_, length);
  }
  bool reads_zero_when_created() const override { return file_->reads_zero_when_created(); }

  Value snapshots_info() const override { return snapshots_info_of(*file_); }
  std::vector<SnapshotRecord> snapshots() const override { return snapshots_of(*file_); }
  Task<void> learn_snapshots() override { return cairn::learn_snapshots(*file_); }
  Task<void> create_snapshot(std::string name) override {
    return cairn::create_snapshot(*file_, std::move(name));
  }
  Task<void> delete_snapshot(std::string name) override {
    return cairn::delete_snapshot(*file_, std::move(name));
  }
  Task<void> record_snapshot(SnapshotRecord record) override {
    return cairn::record_snapshot(*file_, std::move(record));
  }
  Task<void> apply_snapshot(std::string which) override {
    co_await cairn::apply_snapshot(*file_, std::move(which));
    set_length(align_up(file_->length(), kSector));
  }
  Task<void> show_snapshot(std::string id, std::string name) override {
    co_await cairn::show_snapshot(*file_, std::move(id), std::move(name));
    set_length(align_up(file_->length(), kSector));
  }
  Task<void> show_state(std::optional<size_t> which) override {
    co_await cairn::show_state(*file_, which);
    set_length(align_up(file_->length(), kSector));
  }

 protected:
  void* find_capability(CapabilityId id) override {
    if (id == &SnapshotView::kCapability)
      return keeps<SnapshotView>() ? static_cast<SnapshotView*>(this) : nullptr;
    if (id == &SnapshotStore::kCapability)
      return keeps<SnapshotStore>() ? static_cast<SnapshotStore*>(this) : nullptr;
    return Capabilities::find(this, id);
  }
  // Where nothing is shifted the file's own task is handed on: no frame of ours in between.
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    if (debug_below() != nullptr || follows_) return followed_read(offset + offset_, out);
    return file_->read(offset + offset_, out);
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    if (debug_below() != nullptr || follows_ || passes_end(offset, in.size()))
      return followed_write(offset + offset_, in, flags);
    return file_->write(offset + offset_, in, flags);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    const bool grows = passes_end(offset, length);
    co_await file_->write_zeroes(offset + offset_, length, flags);
    if (follows_ || grows) follow_length();
  }
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    return file_->discard(offset + offset_, length);
  }
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override {
    Extent extent = co_await file_->layer_extent_at(offset + offset_, max);
    extent.allocated = true;
    // Direct I/O has whole sectors only: the one that the end of the file cuts is in one state.
    if (const uint64_t end = offset + offset_ + extent.length; end == file_->length())
      extent.length +=
          std::min(align_up(end, limits().request_alignment) - end, max - extent.length);
    if (extent.host == nullptr && extent.zero) {
      // The sector that the end of the file cuts: nothing is stored there.
      extent.host = file_;
      extent.host_offset = offset + offset_;
    }
    co_return extent;
  }
  bool take_child(std::string_view name, Node& child) override {
    if (name != "file") return false;
    file_ = &child;
    return true;
  }
  Task<void> do_resize(ResizeRequest request) override {
    if (fixed_ && !request.exact && request.length <= length()) co_return;
    if (fixed_) throw Error(ErrorKind::kInvalid, "Cannot resize fixed-size raw disks");
    const auto end = checked_add(request.length, offset_);
    if (!end || *end > static_cast<uint64_t>(INT64_MAX))
      throw Error(ErrorKind::kInvalid, "Disk size too large for the chosen offset");
    const uint64_t length = request.length;
    request.length = *end;
    co_await file_->resize(request);
    set_length(request.round_up ? file_->length() - offset_ : length);
  }

 private:
  // Snapshots are those of the storage, where that keeps some and the whole of it is the disk.
  template <class Capability>
  bool keeps() const {
    return !window_ && file_->driver().kind() == DriverKind::kProtocol && file_->as<Capability>();
  }
  Task<void> followed_read(uint64_t offset, MutableByteSpan out) {
    if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kReadAio);
    co_await file_->read(offset, out);
    follow_length();
  }
  Task<void> followed_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
    if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kWriteAio);
    co_await file_->write(offset, in, flags);
    follow_length();
  }
  bool passes_end(uint64_t offset, uint64_t bytes) const {
    return grows_ && offset + bytes > length();
  }
  // A window without an end of its own grows with its file, and so does what has a name.
  void follow_length() {
    const uint64_t end = file_->length();
    if ((follows_ || grows_) && end > offset_ + length())
      set_length(align_up(end - offset_, kSector));
  }
  Node* file_ = nullptr;
  uint64_t offset_;
  bool fixed_;
  bool window_;
  bool follows_;  // a window that grows as its file does
  bool grows_;    // a node of a graph, which grows by being written past its end
};

const std::vector<Sample> kSamples = {
    {.name = "default", .exchanged = true},
};

class RawDriver : public Driver {
 public:
  RawDriver()
      : Driver({.name = "raw",
                .title = "the bytes of the disk as they are",
                .endings = {"raw", "img", "ima", "iso", "bin", "dd"},
                .abilities = {.create = true, .resize = true},
                .capabilities = RawNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kOpenOptions,
                .create_options = kCreateOptions,
                .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput&) const override { return {.score = 1}; }

  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    std::exception_ptr error;
    try {
      const uint64_t offset = request.options.size("offset").value_or(0);
      const auto size = request.options.size("size");
      check_window(file->length(), offset, size);
      if ((offset != 0 || size) && request.flags.nodes == nullptr) {
        Permissions permissions = request.file_permissions();
        if (!request.flags.force_share && !request.flags.metadata_only)
          permissions.unshared |= Permissions::kResize;
        co_await set_permissions(*file, permissions);
      }
      co_return std::make_shared<RawNode>(request, file, offset, size);
    } catch (...) {
      error = std::current_exception();
    }
    co_await file->close();
    std::rethrow_exception(error);
  }

  Task<void> create(Context&, CreateRequest request) const override {
    // A protocol that made the file made it as large as it could.
    if (request.file->length() < request.size)
      co_await request.file->resize({.length = request.size, .exact = false});
  }

  Task<MeasureResult> measure(Context&, Options, uint64_t size, NodePtr source) const override {
    const uint64_t bytes = align_up(source ? source->length() : size, kSector);
    co_return MeasureResult{.required = bytes, .fully_allocated = bytes, .bitmaps = std::nullopt};
  }

 private:
  static void check_window(uint64_t length, uint64_t offset, std::optional<uint64_t> size) {
    if (offset > length)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("Offset ({}) cannot be greater than size of the containing file ({})",
                              offset, length));
    if (!size) return;
    if (*size > length - offset)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("The sum of offset ({}) and size ({}) has to be smaller or equal to "
                              "the  actual size of the containing file ({})",
                              offset, *size, length));
    if (!is_aligned(*size, kSector))
      throw Error(ErrorKind::kInvalid, "Specified size is not multiple of 512");
  }
};

}  // namespace

std::unique_ptr<Driver> make_raw_driver() { return std::make_unique<RawDriver>(); }

}  // namespace cairn
