// Writes down what is written, in the form that the Linux kernel's device mapper target log-writes
// has, so that its replay tools read it.

#include <algorithm>

#include "async/finally.h"
#include "base/arith.h"
#include "block/driver.h"
#include "filter/filter.h"

namespace cairn {
namespace {

const OptionSchema kBlklogwritesOptions = {
    {"log-sector-size", OptionType::kSize, "512", "unit of offsets and lengths in the log"},
    {"log-append", OptionType::kBool, "off", "append to what the log has"},
    {"log-super-update-interval", OptionType::kNumber, "4096",
     "after so many entries the number in the log's head is brought up to date"},
};

// The log: a head of one sector, then entries of one sector each, data after those that have some.
constexpr uint64_t kMagic = 0x6a736677736872;
constexpr uint64_t kVersion = 1;
// Flags of entries.
constexpr uint64_t kFlush = 1;
constexpr uint64_t kDiscard = 4;

class BlklogwritesNode : public FilterNode {
 public:
  BlklogwritesNode(OpenContext& request, NodePtr file, NodePtr log, uint64_t sector,
                   uint64_t interval)
      : FilterNode(request, std::move(file)),
        log_(log.get()),
        sector_(sector),
        interval_(interval),
        next_(sector) {
    Limits& limits = mutable_limits();
    limits.request_alignment =
        std::max<uint32_t>(limits.request_alignment, static_cast<uint32_t>(sector));
    limits.zero_alignment = std::max(limits.zero_alignment, sector);
    limits.discard_alignment = std::max(limits.discard_alignment, sector);
    add_child("log", std::move(log), ChildRole::kFile);
  }

  // Finds the end of a log that is there already.
  Task<void> go_on() {
    std::vector<std::byte> head(sector_);
    co_await log_->read(0, head);
    const uint64_t count = load_le<uint64_t>(head, 16);
    for (uint64_t i = 0; i < count; ++i) {
      // Every step needs room in the file: a head that is wrong ends at its end.
      if (next_ >= log_->length())
        throw Error(ErrorKind::kCorrupt, "The log ends before its last entry");
      co_await log_->read(next_, head);
      uint64_t data = 0;
      if ((load_le<uint64_t>(head, 16) & kDiscard) == 0) {
        const auto bytes = checked_mul(load_le<uint64_t>(head, 8), sector_);
        if (!bytes || *bytes > log_->length())
          throw Error(ErrorKind::kCorrupt, "An entry of the log is longer than the log");
        data = *bytes;
      }
      next_ += sector_ + data;
    }
    entries_ = count;
  }

 protected:
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    co_await FilterNode::do_write(offset, in, flags);
    co_await add(offset, in.size(), 0, in);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    co_await FilterNode::do_write_zeroes(offset, length, flags);
    const uint64_t most = uint64_t{1} << 20;
    const std::vector<std::byte> zeroes(std::min(length, most));
    for (uint64_t at = 0; at < length; at += most)
      co_await add(offset + at, std::min(most, length - at), 0,
                   ByteSpan(zeroes).first(std::min(most, length - at)));
  }
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    co_await FilterNode::do_discard(offset, length);
    co_await add(offset, length, kDiscard, {});
  }
  Task<void> do_flush() override {
    co_await FilterNode::do_flush();
    co_await add(0, 0, kFlush, {});
    Mutex::Guard guard = co_await mutex_.lock();
    co_await write_head();
    co_await log_->flush();
  }

 private:
  Task<void> add(uint64_t offset, uint64_t length, uint64_t flags, ByteSpan data) {
    Mutex::Guard guard = co_await mutex_.lock();
    std::vector<std::byte> entry(sector_);
    store_le<uint64_t>(entry, 0, offset / sector_);
    store_le<uint64_t>(entry, 8, length / sector_);
    store_le<uint64_t>(entry, 16, flags);
    co_await log_->write(next_, entry);
    if (!data.empty()) co_await log_->write(next_ + sector_, data);
    next_ += sector_ + data.size();
    ++entries_;
    if (entries_ % interval_ == 0) co_await write_head();
  }

  // mutex_ is held.
  Task<void> write_head() {
    std::vector<std::byte> head(sector_);
    store_le<uint64_t>(head, 0, kMagic);
    store_le<uint64_t>(head, 8, kVersion);
    store_le<uint64_t>(head, 16, entries_);
    store_le<uint32_t>(head, 24, static_cast<uint32_t>(sector_));
    co_await log_->write(0, head);
  }

  Node* log_;
  uint64_t sector_;
  uint64_t interval_;
  Mutex mutex_;
  uint64_t next_;  // where the next entry goes in the log
  uint64_t entries_ = 0;
};

class BlklogwritesDriver : public Driver {
 public:
  BlklogwritesDriver()
      : Driver({.name = "blklogwrites",
                .title = "writes down what is written",
                .kind = DriverKind::kFilter,
                .abilities = {.resize = true},
                .verbatim = true,
                .open_options = kBlklogwritesOptions}) {}
  Task<NodePtr> open(OpenContext& request) const override {
    const auto given = request.options.size("log-sector-size");
    uint64_t sector = given.value_or(512);
    bool append = request.options.boolean("log-append").value_or(false);
    if (append && given)
      throw Error(ErrorKind::kInvalid, "log-append and log-sector-size are mutually exclusive");
    const uint64_t interval = request.options.number("log-super-update-interval").value_or(4096);
    check_sector(sector);
    if (interval == 0) throw Error(ErrorKind::kInvalid, "Invalid log superblock update interval 0");
    NodePtr file = co_await request.open_file();
    NodePtr log;
    NodePtr result = co_await on_failure(
        [&]() -> Task<NodePtr> {
          log = co_await request.open_file("log");
          // An empty log has nothing to continue after.
          append = append && log->length() != 0;
          if (append) sector = co_await sector_of(*log);
          auto node = std::make_shared<BlklogwritesNode>(request, file, log, sector, interval);
          if (append) co_await node->go_on();
          co_return node;
        },
        [&]() -> Task<void> {
          if (log) co_await log->close();
          co_await file->close();
        });
    co_return result;
  }

 private:
  static void check_sector(uint64_t bytes) {
    if (!is_power_of_two(bytes) || bytes < 512 || bytes > (1 << 23))
      throw Error(ErrorKind::kInvalid, "Invalid log sector size " + std::to_string(bytes));
  }
  // What the head of a log says about its unit.
  static Task<uint64_t> sector_of(Node& log) {
    std::vector<std::byte> head(512);
    co_await log.read(0, head);
    if (load_le<uint64_t>(head, 0) != kMagic)
      throw Error(ErrorKind::kInvalid, "Invalid log superblock magic");
    if (load_le<uint64_t>(head, 8) != kVersion)
      throw Error(ErrorKind::kUnsupported, "Unsupported log version");
    const uint64_t sector = load_le<uint32_t>(head, 24);
    check_sector(sector);
    co_return sector;
  }
};

}  // namespace

std::unique_ptr<Driver> make_blklogwrites_driver() {
  return std::make_unique<BlklogwritesDriver>();
}

}  // namespace cairn
