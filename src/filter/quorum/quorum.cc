// A disk that is kept several times: every write goes to all children, every read is decided by a
// vote of what they hold, or answered by the first that can.

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <numeric>

#include "async/task_group.h"
#include "base/buffer.h"
#include "block/capabilities/disk_reporter.h"
#include "block/capabilities/disk_set.h"
#include "block/capabilities/image_info.h"
#include "block/context.h"
#include "block/driver.h"
#include "filter/filter.h"

namespace cairn {
namespace {

const OptionSchema kQuorumOptions = {
    {"children", OptionType::kString, "", "the disks, as children.0, children.1, …"},
    {"vote-threshold", OptionType::kNumber, "", "how many disks must agree"},
    {"blkverify", OptionType::kBool, "off", "two disks: a difference is an error"},
    {"rewrite-corrupted", OptionType::kBool, "off", "overwrite what lost a vote"},
    {"read-pattern", OptionType::kString, "quorum", "quorum: vote; fifo: the first that answers"},
};

// One request holds a buffer for each child.
constexpr uint64_t kMostTransferred = 16 << 20;
constexpr size_t kMostChildren = 64;

struct Manner {
  uint64_t threshold = 0;
  bool verify = false;
  bool rewrite = false;
  bool fifo = false;
};

using Failures = std::vector<std::exception_ptr>;

// Awaits TASK and keeps its error.
Task<void> keep_failure(Task<void> task, std::exception_ptr* failure) {
  try {
    co_await task;
  } catch (...) {
    *failure = std::current_exception();
  }
}

int errno_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return error.error_number();
  } catch (...) {
    return EIO;
  }
}

// The failure that most children had.
std::exception_ptr most_common(const Failures& failures) {
  std::exception_ptr winner;
  size_t most = 0;
  for (const std::exception_ptr& one : failures) {
    if (!one) continue;
    const int number = errno_of(one);
    const auto votes =
        static_cast<size_t>(std::count_if(failures.begin(), failures.end(), [&](const auto& other) {
          return other && errno_of(other) == number;
        }));
    if (votes > most) {
      winner = one;
      most = votes;
    }
  }
  return winner;
}

class QuorumNode : public Node, public ImageInfo, public DiskSet, public DiskReporter {
 public:
  using Capabilities = CapabilityList<ImageInfo, DiskSet, DiskReporter>;

  QuorumNode(OpenContext& request, std::vector<NodePtr> disks, Manner manner)
      : Node(request.context, request.driver), manner_(manner) {
    Limits& limits = mutable_limits();
    for (const NodePtr& disk : disks) {
      const Limits& its = disk->limits();
      limits.request_alignment = std::max(limits.request_alignment, its.request_alignment);
      limits.memory_alignment = std::max(limits.memory_alignment, its.memory_alignment);
      limits.remote = limits.remote || its.remote;
    }
    limits.max_transfer = kMostTransferred;
    set_length(disks.front()->length());
    set_unbounded(false);
    for (NodePtr& disk : disks) {
      disks_.push_back(disk.get());
      add_child(next_disk(), std::move(disk), ChildRole::kExtent);
    }
  }

  std::string next_disk() override {
    if (disks_.size() > kMostChildren) throw Error(ErrorKind::kInvalid, "Too many children");
    return "children." + std::to_string(next_++);
  }
  void check_fewer() const override {
    if (disks_.size() <= manner_.threshold)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("The number of children cannot be lower than the vote threshold {}",
                              manner_.threshold));
  }
  void disks_changed() override {
    disks_.clear();
    for (const Child& child : children()) disks_.push_back(child.node.get());
  }

  void report_to(Listener listener) override { listener_ = std::move(listener); }

  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  // The name of the tree OPTIONS, of which the children know their own parts.
  void set_tree_name(const Options& options) {
    Value tree = Value::object();
    for (const auto& [key, value] : options.items())
      if (!key.starts_with("children")) tree.set(key, value);
    Value disks = Value::array();
    for (const Node* disk : disks_) disks.push_back(options_of(*disk));
    tree.set("children", std::move(disks));
    tree.set("driver", "quorum");
    set_filename("json:" + tree.compact(context().profile.json_order));
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    if (manner_.fifo)
      co_await read_first(offset, out);
    else
      co_await read_vote(offset, out);
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    co_await on_all({offset, in.size(), Request::kWrite},
                    [&](Node& disk) { return disk.write(offset, in, flags); });
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    // Given back space may read differently on each.
    flags.may_unmap = false;
    co_await on_all({offset, length, Request::kWrite},
                    [&](Node& disk) { return disk.write_zeroes(offset, length, flags); });
  }
  // What discarded bytes read as differs, and the disks would no longer agree.
  Task<void> do_discard(uint64_t, uint64_t) override { co_return; }
  Task<void> do_flush() override {
    co_await on_all({0, 0, Request::kFlush}, [](Node& disk) { return disk.flush(); });
  }
  // Zeroes are what all disks know to be zeroes; anything else is decided by reading.
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override {
    Extent result;
    result.length = max;
    result.allocated = true;
    bool zero = true;
    for (Node* disk : disks_) {
      Extent extent;
      try {
        extent = co_await disk->extent_at(offset, result.length);
      } catch (const Error&) {
        extent.length = result.length;
      }
      result.length = std::min(result.length, extent.length);
      zero = zero && extent.zero;
    }
    result.zero = zero;
    result.data = !zero;
    co_return result;
  }

  bool take_child(std::string_view name, Node& child) override {
    for (size_t i = 0; i < children().size(); ++i)
      if (children()[i].name == name) disks_[i] = &child;
    return true;
  }

 private:
  using Request = DiskReport::Request;
  // What the disks are asked for.
  struct Range {
    uint64_t offset;
    uint64_t length;
    Request request;
  };

  void report(const Range& range, std::string disk, std::optional<std::string> error) const {
    if (listener_)
      listener_({.disk = std::move(disk),
                 .request = range.request,
                 .offset = range.offset,
                 .length = range.length,
                 .error = std::move(error)});
  }

  // Does WORK on all disks at once; enough of them must succeed.
  Task<void> on_all(Range range, std::function<Task<void>(Node&)> work) {
    Failures failures(disks_.size());
    TaskGroup group;
    for (size_t i = 0; i < disks_.size(); ++i)
      group.spawn(keep_failure(work(*disks_[i]), &failures[i]));
    co_await group.join();
    demand_enough(range, failures);
  }
  void demand_enough(const Range& range, const Failures& failures) const {
    for (size_t i = 0; i < failures.size(); ++i)
      if (failures[i])
        report(range, disks_[i]->node_name(), Error::system(errno_of(failures[i])).message());
    const auto good = static_cast<uint64_t>(std::count(failures.begin(), failures.end(), nullptr));
    if (good >= manner_.threshold) return;
    if (range.request != Request::kFlush) report(range, {}, std::nullopt);
    std::rethrow_exception(most_common(failures));
  }

  Task<void> read_first(uint64_t offset, MutableByteSpan out) {
    std::exception_ptr failure;
    for (Node* disk : disks_) {
      failure = nullptr;
      try {
        co_await disk->read(offset, out);
      } catch (...) {
        failure = std::current_exception();
      }
      if (!failure) co_return;
    }
    std::rethrow_exception(failure);
  }

  Task<void> read_vote(uint64_t offset, MutableByteSpan out) {
    Failures failures(disks_.size());
    std::vector<AlignedBuffer> held;
    for (size_t i = 1; i < disks_.size(); ++i) held.emplace_back(out.size());
    std::vector<MutableByteSpan> copies{out};
    for (AlignedBuffer& buffer : held) copies.push_back(buffer.span().first(out.size()));
    {
      TaskGroup group;
      for (size_t i = 0; i < disks_.size(); ++i)
        group.spawn(keep_failure(disks_[i]->read(offset, copies[i]), &failures[i]));
      co_await group.join();
    }
    const Range range{offset, out.size(), Request::kRead};
    demand_enough(range, failures);
    const std::vector<size_t> version = versions(copies, failures);
    if (manner_.verify && version[1] != 0) refuse_difference(offset, copies);
    const std::optional<size_t> winner = winner_of(version, failures);
    if (!winner) {
      report(range, {}, std::nullopt);
      throw Error::system(EIO);
    }
    std::vector<size_t> losers;
    for (size_t i = 0; i < disks_.size(); ++i)
      if (!failures[i] && version[i] != *winner) losers.push_back(i);
    for (const size_t loser : losers) report(range, disks_[loser]->node_name(), std::nullopt);
    if (manner_.rewrite && !read_only()) {
      for (const size_t loser : losers) {
        // One that cannot be mended loses the next vote as well.
        std::exception_ptr ignored;
        co_await keep_failure(disks_[loser]->write(offset, copies[*winner]), &ignored);
      }
    }
    if (*winner != 0) std::copy(copies[*winner].begin(), copies[*winner].end(), out.begin());
  }

  // For each disk the first one that holds the same.
  static std::vector<size_t> versions(const std::vector<MutableByteSpan>& copies,
                                      const Failures& failures) {
    std::vector<size_t> version(copies.size());
    std::iota(version.begin(), version.end(), size_t{0});
    for (size_t i = 1; i < copies.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (!failures[i] && !failures[j] && version[j] == j &&
            std::equal(copies[i].begin(), copies[i].end(), copies[j].begin())) {
          version[i] = j;
          break;
        }
    return version;
  }
  // The disk whose version enough of them have; nothing when there is none.
  std::optional<size_t> winner_of(const std::vector<size_t>& version,
                                  const Failures& failures) const {
    size_t winner = 0;
    uint64_t most = 0;
    for (size_t i = 0; i < version.size(); ++i) {
      if (failures[i]) continue;
      const auto votes = static_cast<uint64_t>(std::count(version.begin(), version.end(), i));
      if (version[i] == i && votes > most) {
        winner = i;
        most = votes;
      }
    }
    if (most < manner_.threshold) return std::nullopt;
    return winner;
  }
  [[noreturn]] void refuse_difference(uint64_t offset,
                                      const std::vector<MutableByteSpan>& copies) const {
    const auto [mine, theirs] =
        std::mismatch(copies[0].begin(), copies[0].end(), copies[1].begin());
    const std::string text =
        fmt::format("quorum: offset={} bytes={} contents mismatch at offset {}", offset,
                    copies[0].size(), offset + static_cast<uint64_t>(mine - copies[0].begin()));
    context().tell_difference(text);
    throw Error(ErrorKind::kCorrupt, text);
  }

  Manner manner_;
  uint64_t next_ = 0;
  std::vector<Node*> disks_;
  Listener listener_;
};

// How many children the options name, as children.0, children.1 and so on.
size_t count_children(const Options& options) {
  size_t count = 0;
  while (options.has_tree("children." + std::to_string(count))) ++count;
  for (const auto& [key, value] : options.items()) {
    if (!key.starts_with("children.")) continue;
    const std::string index = key.substr(9, key.find('.', 9) - 9);
    const bool known = !index.empty() && index.size() < 4 &&
                       index.find_first_not_of("0123456789") == std::string::npos &&
                       std::stoul(index) < count;
    if (!known) throw Error(ErrorKind::kInvalid, "Option children is not a valid array");
  }
  if (count == 0) throw Error(ErrorKind::kInvalid, "Number of provided children must be 1 or more");
  if (count > kMostChildren)
    throw Error(ErrorKind::kInvalid,
                fmt::format("Number of provided children must be {} or less", kMostChildren));
  return count;
}

Manner manner_of(const Options& options, size_t count) {
  Manner manner;
  const std::string given = options.string("vote-threshold").value_or("0");
  // A negative number is a number, but too small.
  if (!given.starts_with('-')) manner.threshold = options.number("vote-threshold").value_or(0);
  const std::string pattern = options.string("read-pattern").value_or("quorum");
  manner.fifo = pattern == "fifo";
  const bool verify = options.boolean("blkverify").value_or(false);
  const bool rewrite = options.boolean("rewrite-corrupted").value_or(false);
  const auto refuse = [](const char* text) { throw Error(ErrorKind::kInvalid, text); };
  if (manner.threshold < 1) refuse("Parameter 'vote-threshold' expects a value >= 1");
  if (manner.threshold > count) refuse("threshold may not exceed children count");
  if (pattern != "fifo" && pattern != "quorum") refuse("Please set read-pattern as fifo or quorum");
  if (manner.fifo) return manner;
  manner.verify = verify;
  manner.rewrite = rewrite;
  if (verify && (count != 2 || manner.threshold != 2))
    refuse("blkverify=on can only be set if there are exactly two files and vote-threshold is 2");
  if (verify && rewrite) refuse("rewrite-corrupted=on cannot be used with blkverify=on");
  return manner;
}

class QuorumDriver : public Driver {
 public:
  QuorumDriver()
      : Driver({.name = "quorum",
                .title = "a disk kept several times, read by vote",
                .kind = DriverKind::kFilter,
                .capabilities = QuorumNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kQuorumOptions}) {}

  Task<NodePtr> open(OpenContext& request) const override {
    const Options given = request.options;
    request.options.mark_used("children");
    const size_t count = count_children(request.options);
    const Manner manner = manner_of(request.options, count);
    // A name given from outside is none of the children's.
    request.filename.clear();
    std::vector<NodePtr> disks;
    std::exception_ptr error;
    try {
      for (size_t i = 0; i < count; ++i) {
        NodePtr disk = co_await request.open_image("children." + std::to_string(i));
        disks.push_back(std::move(disk));
      }
      for (const NodePtr& disk : disks)
        if (disk->length() != disks.front()->length())
          throw Error(ErrorKind::kIo, "Could not refresh total sector count: Input/output error")
              .hint(
                  fmt::format("The children of a quorum must be of the same size: {} and {} bytes.",
                              disks.front()->length(), disk->length()));
      auto node = std::make_shared<QuorumNode>(request, disks, manner);
      node->set_tree_name(given);
      co_return node;
    } catch (...) {
      error = std::current_exception();
    }
    for (const NodePtr& disk : disks) {
      std::exception_ptr ignored;
      co_await keep_failure(disk->close(), &ignored);
    }
    std::rethrow_exception(error);
  }
};

}  // namespace

std::unique_ptr<Driver> make_quorum_driver() { return std::make_unique<QuorumDriver>(); }

}  // namespace cairn
