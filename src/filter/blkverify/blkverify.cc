// A disk that is kept twice: every write goes to "test" and to "raw", every read is done on both
// and fails when they differ. Written as blkverify:RAW:TEST as well.

#include <fmt/core.h>

#include <algorithm>

#include "async/finally.h"
#include "async/task_group.h"
#include "base/buffer.h"
#include "block/capabilities/storage_use.h"
#include "block/context.h"
#include "block/driver.h"
#include "filter/filter.h"

namespace cairn {
namespace {

const OptionSchema kBlkverifyOptions = {
    {"x-raw", OptionType::kString, "", "name of the raw disk, as blkverify:RAW:TEST gives it"},
    {"x-image", OptionType::kString, "", "name of the image that is tested"},
};

// Awaits TASK and keeps its error.
Task<void> keep_error(Task<void> task, std::exception_ptr* error) {
  try {
    co_await task;
  } catch (...) {
    *error = std::current_exception();
  }
}

int number_of(const std::exception_ptr& error) {
  if (!error) return 0;
  try {
    std::rethrow_exception(error);
  } catch (const Error& caught) {
    return -caught.error_number();
  }
}

// "file" is the image that is tested; "raw" the disk that is right.
class BlkverifyNode : public FilterNode, public StorageUse {
 public:
  using Capabilities = CapabilityList<StorageUse>;

  BlkverifyNode(OpenContext& request, NodePtr test, NodePtr raw)
      : FilterNode(request, std::move(test)), raw_(raw.get()) {
    Limits& limits = mutable_limits();
    limits.request_alignment = std::max(limits.request_alignment, raw_->limits().request_alignment);
    limits.memory_alignment = std::max(limits.memory_alignment, raw_->limits().memory_alignment);
    add_child("raw", std::move(raw), ChildRole::kFile);
  }
  // Two disks take two sizes.
  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    AlignedBuffer other(out.size());
    co_await both(below().read(offset, out), raw_->read(offset, other.span()));
    const auto [mine, theirs] = std::mismatch(out.begin(), out.end(), other.span().begin());
    if (mine == out.end()) co_return;
    const uint64_t at = offset + static_cast<uint64_t>(mine - out.begin());
    const std::string told =
        fmt::format("blkverify: read offset={} bytes={} contents mismatch at offset {}", offset,
                    out.size(), at);
    context().tell_difference(told);
    throw Error(ErrorKind::kCorrupt, told);
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    co_await both(below().write(offset, in, flags), raw_->write(offset, in, flags));
    follow_length();
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    co_await both(below().write_zeroes(offset, length, flags),
                  raw_->write_zeroes(offset, length, flags));
    follow_length();
  }
  // What discarded bytes read as may differ.
  Task<void> do_discard(uint64_t, uint64_t) override { co_return; }
  Task<void> do_flush() override { co_await both(below().flush(), raw_->flush()); }
  Task<void> do_resize(ResizeRequest request) override {
    co_await both(below().resize(request), raw_->resize(request));
    follow_length();
  }

 private:
  // Runs both side by side; they must end alike.
  Task<void> both(Task<void> mine, Task<void> theirs) {
    std::exception_ptr first;
    std::exception_ptr second;
    TaskGroup group;
    group.spawn(keep_error(std::move(mine), &first));
    group.spawn(keep_error(std::move(theirs), &second));
    co_await group.join();
    const int a = number_of(first);
    const int b = number_of(second);
    if (a != b) {
      const std::string told = fmt::format("blkverify: return value mismatch {} != {}", a, b);
      context().tell_difference(told);
      throw Error(ErrorKind::kCorrupt, told);
    }
    if (first) std::rethrow_exception(first);
  }
  Node* raw_;
};

class BlkverifyDriver : public Driver {
 public:
  BlkverifyDriver()
      : Driver({.name = "blkverify",
                .title = "compares an image with a raw disk",
                .kind = DriverKind::kFilter,
                .prefixes = {"blkverify"},
                .abilities = {.resize = true},
                .capabilities = BlkverifyNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kBlkverifyOptions}) {}

  void parse_filename(std::string_view filename, Options& options) const override {
    if (!filename.starts_with("blkverify:")) {
      // A plain name is the image's; options name the raw disk.
      options.set("x-image", filename);
      return;
    }
    filename.remove_prefix(10);
    const size_t colon = filename.find(':');
    if (colon == std::string_view::npos)
      throw Error(ErrorKind::kInvalid, "blkverify requires raw copy and original image path");
    options.set("x-raw", filename.substr(0, colon));
    options.set("x-image", filename.substr(colon + 1));
  }

  Task<NodePtr> open(OpenContext& request) const override {
    Options& options = request.options;
    if (!request.filename.empty() && !options.has("test") && !options.has_tree("test"))
      parse_filename(request.filename, options);
    const auto raw_name = options.string("x-raw");
    if (raw_name) request.options.set("raw.filename", *raw_name);
    NodePtr raw = co_await request.open_file("raw");
    NodePtr result = co_await on_failure(
        [&]() -> Task<NodePtr> {
          const auto named = request.options.string("x-image");
          if (named) request.filename = *named;
          NodePtr test = co_await request.open_image(named ? "file" : "test");
          co_return std::make_shared<BlkverifyNode>(request, std::move(test), raw);
        },
        [&] { return raw->close(); });
    co_return result;
  }
};

}  // namespace

std::unique_ptr<Driver> make_blkverify_driver() { return std::make_unique<BlkverifyDriver>(); }

}  // namespace cairn
