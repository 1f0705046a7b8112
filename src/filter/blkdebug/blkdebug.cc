// The fault filter with QEMU's option names: rules that make requests fail once a driver above has
// come to some event, states that events lead through, breakpoints. Options and the form of the
// rules' file: docs/io.md.

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <list>

#include "async/finally.h"
#include "base/arith.h"
#include "block/capabilities/storage_use.h"
#include "block/context.h"
#include "block/driver.h"
#include "filter/blkdebug/rules.h"
#include "filter/filter.h"
#include "platform/file.h"

namespace cairn {
namespace {

using blkdebug::Machine;
using blkdebug::Rules;

const OptionSchema kBlkdebugOptions = {
    {"config", OptionType::kString, "", "file of rules"},
    {"x-image", OptionType::kString, "", "name of the image, as blkdebug:CONFIG:NAME gives it"},
    {"align", OptionType::kSize, "", "request alignment"},
    {"max-transfer", OptionType::kSize, "", "longest request"},
    {"opt-write-zero", OptionType::kSize, "", "alignment of zeroing"},
    {"max-write-zero", OptionType::kSize, "", "longest request to zero"},
    {"opt-discard", OptionType::kSize, "", "alignment of discards"},
    {"max-discard", OptionType::kSize, "", "longest discard"},
    {"take-child-perms", OptionType::kString, "", "permissions to take on the image"},
    {"unshare-child-perms", OptionType::kString, "", "permissions to deny to others"},
};

// Requests that stopped at breakpoints, by tag.
class Breakpoints : public DebugPort {
 public:
  Breakpoints(Context& context, Machine* machine) : context_(context), machine_(machine) {}

  Task<void> event(DebugEvent event) override {
    std::list<Point> reached;
    {
      const std::lock_guard lock(mutex_);
      for (auto point = points_.begin(); point != points_.end();) {
        const auto next = std::next(point);
        if (point->event == event) reached.splice(reached.end(), points_, point);
        point = next;
      }
    }
    machine_->happened(event);
    for (Point& point : reached) {
      context_.show("blkdebug: Suspended request '" + point.tag + "'");
      // A named one: GCC 12 destroys such temporaries twice.
      Stop stop{this, point.tag};
      co_await stop;
      context_.show("blkdebug: Resuming request '" + point.tag + "'");
    }
  }

  void set_breakpoint(DebugEvent event, std::string tag) override {
    const std::lock_guard lock(mutex_);
    points_.push_back({event, std::move(tag)});
  }
  bool remove_breakpoint(std::string_view tag) override {
    bool found = false;
    {
      const std::lock_guard lock(mutex_);
      found = std::erase_if(points_, [&](const Point& point) { return point.tag == tag; }) != 0;
    }
    return resume(tag) || found;
  }
  bool resume(std::string_view tag) override {
    return release([&](const Stopped& one) { return one.tag == tag; });
  }
  bool is_suspended(std::string_view tag) const override {
    const std::lock_guard lock(mutex_);
    return std::any_of(stopped_.begin(), stopped_.end(),
                       [&](const Stopped& one) { return one.tag == tag; });
  }

 private:
  struct Point {
    DebugEvent event;
    std::string tag;
  };
  struct Stopped {
    std::string tag;
    Worker* worker;
    std::coroutine_handle<> handle;
  };
  struct Stop {
    Breakpoints* owner;
    std::string tag;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) {
      const std::lock_guard lock(owner->mutex_);
      owner->stopped_.push_back({tag, Worker::current(), handle});
    }
    void await_resume() const noexcept {}
  };
  template <class F>
  bool release(F wanted) {
    std::list<Stopped> going;
    {
      const std::lock_guard lock(mutex_);
      for (auto one = stopped_.begin(); one != stopped_.end();) {
        const auto next = std::next(one);
        if (wanted(*one)) going.splice(going.end(), stopped_, one);
        one = next;
      }
    }
    for (const Stopped& one : going) one.worker->post(one.handle);
    return !going.empty();
  }

  Context& context_;
  Machine* machine_;
  mutable std::mutex mutex_;
  std::list<Point> points_;
  std::list<Stopped> stopped_;
};

struct Bounds {
  uint64_t align = 0, max_transfer = 0, opt_zero = 0, max_zero = 0, opt_discard = 0,
           max_discard = 0;
};

class BlkdebugNode : public FilterNode, public StorageUse {
 public:
  using Capabilities = CapabilityList<StorageUse>;

  BlkdebugNode(OpenContext& request, NodePtr file, Rules rules, Bounds bounds)
      : FilterNode(request, std::move(file)),
        machine_(std::move(rules)),
        port_(context(), &machine_),
        bounds_(bounds) {
    set_debug_port(&port_);
    Limits& limits = mutable_limits();
    if (bounds.align != 0) {
      limits.request_alignment = static_cast<uint32_t>(bounds.align);
      limits.zero_alignment = std::max(limits.zero_alignment, bounds.align);
      limits.discard_alignment = std::max(limits.discard_alignment, bounds.align);
    }
    if (bounds.max_transfer != 0) limits.max_transfer = bounds.max_transfer;
    if (bounds.opt_zero != 0) limits.zero_alignment = bounds.opt_zero;
    if (bounds.opt_discard != 0) limits.discard_alignment = bounds.opt_discard;
  }

  // As with QEMU, nobody knows.
  Task<std::optional<uint64_t>> allocated_bytes() override { co_return std::nullopt; }
  // The name by which the same node can be opened again, where the image has one of its own.
  void set_short_name(const std::string& config) {
    if (!below().filename().starts_with("json:"))
      set_filename("blkdebug:" + config + ":" + below().filename());
  }
  // The same where more than that is GIVEN.
  void set_tree_name(const Options& given) {
    Value tree = Value::object();
    for (const auto& [key, value] : given.items())
      if (!key.starts_with("image") && !key.starts_with("file") && key != "x-image")
        tree.set(key, value);
    tree.set("image", options_of(below()));
    tree.set("driver", "blkdebug");
    set_filename("json:" + tree.compact(context().profile.json_order));
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    machine_.request(blkdebug::kRead, offset, out.size());
    co_await FilterNode::do_read(offset, out);
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    co_await port_.event(DebugEvent::kPwritev);
    machine_.request(blkdebug::kWrite, offset, in.size());
    co_await FilterNode::do_write(offset, in, flags);
    co_await port_.event(DebugEvent::kPwritevDone);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    co_await port_.event(DebugEvent::kPwritevZero);
    for (uint64_t at = 0; at < length;) {
      const uint64_t part = part_of(length - at, bounds_.max_zero);
      machine_.request(blkdebug::kWriteZeroes, offset + at, part);
      co_await FilterNode::do_write_zeroes(offset + at, part, flags);
      at += part;
    }
    co_await port_.event(DebugEvent::kPwritevDone);
  }
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    for (uint64_t at = 0; at < length;) {
      const uint64_t part = part_of(length - at, bounds_.max_discard);
      machine_.request(blkdebug::kDiscard, offset + at, part);
      co_await FilterNode::do_discard(offset + at, part);
      at += part;
    }
  }
  Task<void> do_flush() override {
    machine_.request(blkdebug::kFlush, 0, 0);
    co_await FilterNode::do_flush();
  }
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override {
    // A sector with an error ends what is known before it.
    machine_.request(blkdebug::kBlockStatus, offset, 1);
    max = machine_.before_error(blkdebug::kBlockStatus, offset, max);
    const Extent extent = co_await FilterNode::do_extent(offset, max);
    co_return extent;
  }

 private:
  static uint64_t part_of(uint64_t length, uint64_t most) {
    return most == 0 ? length : std::min(length, most);
  }
  Machine machine_;
  Breakpoints port_;
  Bounds bounds_;
};

std::string read_config(const std::string& path) {
  const int fd = platform::open(path, O_RDONLY);
  if (fd < 0) throw Error::system(errno, "Could not read blkdebug config file");
  std::string text;
  char buffer[4096];
  ssize_t got = 0;
  // One byte more than the parser takes shows it that the file is too long.
  while (text.size() <= (1u << 20) && (got = platform::read(fd, buffer, sizeof buffer)) > 0)
    text.append(buffer, static_cast<size_t>(got));
  const int error = errno;
  platform::close(fd);
  if (got < 0) throw Error::system(error, "Could not read blkdebug config file");
  return text;
}

void check_permission_list(const Options& options) {
  static constexpr std::string_view kKnown[] = {"consistent-read", "write", "write-unchanged",
                                                "resize"};
  for (const auto& [key, value] : options.items()) {
    const std::string name = options.string(key).value_or("");
    if (std::find(std::begin(kKnown), std::end(kKnown), name) == std::end(kKnown))
      throw Error(ErrorKind::kInvalid, "invalid parameter value: " + name);
  }
}

class BlkdebugDriver : public Driver {
 public:
  BlkdebugDriver()
      : Driver({.name = "blkdebug",
                .title = "injects errors and stops requests",
                .kind = DriverKind::kFilter,
                .prefixes = {"blkdebug"},
                .abilities = {.resize = true},
                .capabilities = BlkdebugNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kBlkdebugOptions}) {}

  void parse_filename(std::string_view filename, Options& options) const override {
    if (!filename.starts_with("blkdebug:")) {
      // A plain name below -f blkdebug is the image's.
      options.set("x-image", filename);
      return;
    }
    filename.remove_prefix(9);
    const size_t colon = filename.find(':');
    if (colon == std::string_view::npos)
      throw Error(ErrorKind::kInvalid, "blkdebug requires both config file and image path");
    if (colon != 0) options.set("config", filename.substr(0, colon));
    options.set("x-image", filename.substr(colon + 1));
  }

  Task<NodePtr> open(OpenContext& request) const override {
    Options& options = request.options;
    const Options given = options;
    const bool plain = only_names(options);
    if (!request.filename.empty() && !options.has("x-image") && !options.has_tree("image.file") &&
        !options.has("image.filename") && !options.has("image"))
      parse_filename(request.filename, options);
    const auto config = options.string("config");
    Rules rules;
    if (config) blkdebug::parse_config(read_config(*config), &rules);
    blkdebug::parse_options(options, &rules);
    check_permission_list(options.take_tree("take-child-perms"));
    check_permission_list(options.take_tree("unshare-child-perms"));
    Bounds bounds;
    bounds.align = options.size("align").value_or(0);
    bounds.max_transfer = options.size("max-transfer").value_or(0);
    bounds.opt_zero = options.size("opt-write-zero").value_or(0);
    bounds.max_zero = options.size("max-write-zero").value_or(0);
    bounds.opt_discard = options.size("opt-discard").value_or(0);
    bounds.max_discard = options.size("max-discard").value_or(0);
    const auto named = options.string("x-image");
    if (named) {
      request.filename = *named;
      // What is said about the image holds for the one that was named.
      const Options image = options.take_tree("image");
      for (const auto& [key, value] : image.items()) options.set("file." + key, value);
    }
    NodePtr file = co_await request.open_file(named ? "file" : "image");
    NodePtr result = co_await on_failure(
        [&]() -> Task<NodePtr> {
          check_bounds(bounds, file->limits());
          auto node = std::make_shared<BlkdebugNode>(request, file, std::move(rules), bounds);
          if (plain) node->set_short_name(config.value_or(""));
          if (node->filename().empty()) node->set_tree_name(given);
          co_return node;
        },
        [&] { return file->close(); });
    co_return result;
  }

 private:
  // Whether nothing but a file of rules and an image is given.
  static bool only_names(const Options& options) {
    const auto items = options.items();
    return std::all_of(items.begin(), items.end(), [](const auto& item) {
      const std::string& key = item.first;
      return key == "config" || key == "x-image" || key == "image" || key.starts_with("image.");
    });
  }
  static void check_bounds(const Bounds& bounds, const Limits& below) {
    const auto refuse = [](const char* what, uint64_t value) {
      throw Error(ErrorKind::kInvalid,
                  fmt::format("Cannot meet constraints with {} {}", what, value));
    };
    const uint64_t align = std::max<uint64_t>(bounds.align, below.request_alignment);
    if (bounds.align != 0 && (bounds.align > INT32_MAX || !is_power_of_two(bounds.align) ||
                              bounds.align < below.request_alignment))
      refuse("align", bounds.align);
    const auto multiple = [&](const char* what, uint64_t value, uint64_t of) {
      if (value != 0 && (value > INT32_MAX || value % of != 0)) refuse(what, value);
    };
    multiple("max-transfer", bounds.max_transfer, align);
    multiple("opt-write-zero", bounds.opt_zero, align);
    multiple("max-write-zero", bounds.max_zero, std::max(bounds.opt_zero, align));
    multiple("opt-discard", bounds.opt_discard, align);
    multiple("max-discard", bounds.max_discard, std::max(bounds.opt_discard, align));
    // Units that are no power of two are legal here, but nobody above could meet them.
    for (const auto& [what, value] : {std::pair{"opt-write-zero", bounds.opt_zero},
                                      std::pair{"opt-discard", bounds.opt_discard}})
      if (value != 0 && !is_power_of_two(value)) refuse(what, value);
  }
};

}  // namespace

std::unique_ptr<Driver> make_blkdebug_driver() { return std::make_unique<BlkdebugDriver>(); }

}  // namespace cairn
