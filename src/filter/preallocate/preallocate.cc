// Makes the file below it grow in large steps, ahead of what is written past its end: the space is
// allocated once, and not by every write. What is too much is cut off when nobody may write past
// the end any more, and at the latest when the node is closed.

#include <algorithm>
#include <atomic>

#include "async/sync.h"
#include "base/arith.h"
#include "block/capabilities/lockable.h"
#include "block/driver.h"
#include "filter/filter.h"

namespace cairn {
namespace {

constexpr uint64_t kPreallocatedBytes = uint64_t{128} << 20;
constexpr uint64_t kPreallocationStep = uint64_t{1} << 20;

const OptionSchema kPreallocateOptions = {
    {"prealloc-align", OptionType::kSize, "1M", "the file's end is a multiple of this"},
    {"prealloc-size", OptionType::kSize, "128M", "bytes allocated beyond what is written"},
};

struct Ahead {
  uint64_t align = kPreallocationStep;  // bytes; 0: none
  uint64_t bytes = kPreallocatedBytes;
};

class PreallocateNode : public FilterNode, public Lockable {
 public:
  using Capabilities = CapabilityList<Lockable>;

  PreallocateNode(OpenContext& request, NodePtr file, Ahead ahead)
      : FilterNode(request, std::move(file)), ahead_(ahead), file_end_(length()) {}

  // A node has no locks of its own: this says whether it may make its file longer.
  Task<void> set_permissions(Permissions permissions) override {
    constexpr uint8_t kGrows = Permissions::kWrite | Permissions::kResize;
    const bool allowed = (permissions.used & kGrows) == kGrows;
    allowed_.store(allowed);
    if (allowed || read_only()) co_return;
    try {
      co_await cut_off();
    } catch (const Error& error) {
      context().warn(filename() +
                     ": the space ahead of the data stays allocated: " + error.message());
    }
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    const uint64_t end = offset + in.size();
    if (end > file_end_.load()) co_await grow(end);
    co_await below().write(offset, in, flags);
    co_await reach(end);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t bytes, WriteFlags flags) override {
    const uint64_t end = offset + bytes;
    if (end > file_end_.load()) co_await grow(end);
    co_await below().write_zeroes(offset, bytes, flags);
    co_await reach(end);
  }
  Task<void> do_resize(ResizeRequest request) override {
    const auto turn = co_await turn_.lock();
    const bool allocates = request.preallocation == Preallocation::kFalloc ||
                           request.preallocation == Preallocation::kFull;
    // Who is content with more gets what was allocated ahead; others do not ask for the space.
    const bool enough = !request.exact && allocates && request.length <= file_end_.load();
    if (!allocates && request.length > length() && file_end_.load() > length()) {
      co_await below().resize({.length = length()});
      file_end_.store(length());
    }
    if (!enough) {
      co_await below().resize(request);
      file_end_.store(below().length());
    }
    set_length(request.exact ? file_end_.load() : std::max(length(), request.length));
  }
  Task<void> do_close() override {
    std::exception_ptr error;
    try {
      if (!read_only()) co_await cut_off();
    } catch (...) {
      error = std::current_exception();
    }
    co_await FilterNode::do_close();
    if (error) std::rethrow_exception(error);
  }
  // The file that was opened again has the same end; that of another file is its own.
  bool take_child(std::string_view name, Node& child) override {
    const uint64_t data_end = length();
    const bool same = child.length() == file_end_.load() && child.filename() == below().filename();
    if (!FilterNode::take_child(name, child)) return false;
    if (same)
      set_length(data_end);
    else
      file_end_.store(child.length());
    return true;
  }

 private:
  // Makes room for a write up to END, and more. Where that fails the write grows the file, or says
  // what is wrong.
  Task<void> grow(uint64_t end) {
    const auto turn = co_await turn_.lock();
    if (end <= file_end_.load() || !allowed_.load()) co_return;
    const auto wanted = checked_add(end, ahead_.bytes);
    if (!wanted || *wanted > static_cast<uint64_t>(INT64_MAX) - ahead_.align) co_return;
    const uint64_t target = ahead_.align == 0 ? *wanted : align_up_any(*wanted, ahead_.align);
    try {
      co_await below().resize({.length = target, .preallocation = Preallocation::kFalloc});
      file_end_.store(below().length());
    } catch (const Error&) {
    }
  }
  static uint64_t align_up_any(uint64_t value, uint64_t unit) {
    return (value + unit - 1) / unit * unit;
  }

  // The data ends at END, or later.
  Task<void> reach(uint64_t end) {
    if (end <= length()) co_return;
    const auto turn = co_await turn_.lock();
    if (end > length()) set_length(end);
    if (end > file_end_.load()) file_end_.store(end);
  }

  Task<void> cut_off() {
    const auto turn = co_await turn_.lock();
    if (file_end_.load() <= length()) co_return;
    co_await below().resize({.length = length()});
    file_end_.store(length());
  }

  const Ahead ahead_;
  Mutex turn_;  // of who changes the ends
  std::atomic<uint64_t> file_end_;
  std::atomic<bool> allowed_{true};
};

class PreallocateDriver : public Driver {
 public:
  PreallocateDriver()
      : Driver({.name = "preallocate",
                .title = "allocates space ahead of what is written",
                .kind = DriverKind::kFilter,
                .abilities = {.resize = true},
                .capabilities = PreallocateNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kPreallocateOptions}) {}
  Task<NodePtr> open(OpenContext& request) const override {
    Ahead ahead;
    ahead.align = request.options.size("prealloc-align").value_or(kPreallocationStep);
    ahead.bytes = request.options.size("prealloc-size").value_or(kPreallocatedBytes);
    if (ahead.align % 512 != 0)
      throw Error(ErrorKind::kInvalid,
                  "prealloc-align parameter of preallocate filter is not aligned to 512");
    if (ahead.align > static_cast<uint64_t>(INT64_MAX))
      throw Error(ErrorKind::kInvalid, "prealloc-align parameter of preallocate filter is too big");
    NodePtr file = co_await request.open_file();
    co_return std::make_shared<PreallocateNode>(request, std::move(file), ahead);
  }
};

}  // namespace

std::unique_ptr<Driver> make_preallocate_driver() { return std::make_unique<PreallocateDriver>(); }

}  // namespace cairn
