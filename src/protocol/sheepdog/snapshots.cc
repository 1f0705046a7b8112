#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "block/context.h"
#include "protocol/sheepdog/node.h"

namespace cairn::sheepdog {
namespace {

std::optional<uint32_t> number_in(const std::string& text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number == 0) return std::nullopt;
  return number;
}

// A list is used so long: one report asks the disk and its format.
constexpr std::chrono::milliseconds kListAge{1000};

[[noreturn]] void no_snapshot() { throw Error(ErrorKind::kNotFound, "snapshot not found"); }

// 0 when there is none.
Task<uint32_t> find_or_nothing(Cluster& cluster, VdiName name) {
  uint32_t vdi = 0;
  try {
    vdi = co_await find_vdi(cluster, std::move(name));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
  }
  co_return vdi;
}

NewVdi successor(const Inode& base, std::string name) {
  return {.name = std::move(name),
          .size = base.size,
          .base = base.vdi,
          .redundancy = {.copies = base.copies, .policy = base.copy_policy},
          .shift = base.shift,
          .replaces = true};
}

}  // namespace

// --- the list ---

Task<void> SheepdogNode::learn_snapshots() {
  const auto now = std::chrono::steady_clock::now();
  if (!list_.empty() && now - listed_at_ < kListAge) co_return;
  listed_at_ = now;
  list_ = co_await list_snapshots(cluster_, name_.name, context().cancel);
}

std::vector<SnapshotRecord> SheepdogNode::snapshots() const {
  std::vector<SnapshotRecord> records;
  for (const Inode& inode : list_) {
    SnapshotRecord record;
    record.id = std::to_string(inode.snapshot);
    record.name = inode.tag;
    record.date_seconds = static_cast<uint32_t>(inode.snapshot_time >> 32);
    record.date_nanoseconds = static_cast<uint32_t>(inode.snapshot_time);
    record.vm_clock = inode.vm_clock;
    record.vm_state_bytes = inode.vm_state_bytes;
    record.disk_bytes = inode.size;
    records.push_back(std::move(record));
  }
  return records;
}

Value SheepdogNode::snapshots_info() const {
  constexpr uint64_t kSecond = 1'000'000'000;
  if (list_.empty()) return {};
  Value list = Value::array();
  for (const SnapshotRecord& record : snapshots()) {
    Value one = Value::object();
    one.set("vm-clock-nsec", record.vm_clock % kSecond);
    one.set("name", record.name);
    one.set("date-sec", uint64_t{record.date_seconds});
    one.set("date-nsec", uint64_t{record.date_nanoseconds});
    one.set("vm-clock-sec", record.vm_clock / kSecond);
    one.set("id", record.id);
    one.set("vm-state-size", record.vm_state_bytes);
    list.push_back(std::move(one));
  }
  return list;
}

// --- what is shown ---

Task<void> SheepdogNode::show_snapshot(std::string id, std::string name) {
  VdiName wanted{.name = name_.name, .tag = {}, .snapshot = 0};
  if (!id.empty()) {
    const auto number = number_in(id);
    if (!number) no_snapshot();
    wanted.snapshot = *number;
  } else {
    if (name.empty() || name.size() > kLongestName) no_snapshot();
    wanted.tag = name;
  }
  auto guard = co_await state_.exclusive();
  const uint32_t vdi = co_await find_or_nothing(cluster_, std::move(wanted));
  if (vdi == 0) no_snapshot();
  const Inode inode = co_await read_inode(cluster_, vdi);
  if (!inode.is_snapshot() || (!id.empty() && !name.empty() && inode.tag != name)) no_snapshot();
  co_await load(vdi);
  shows_other_ = true;
}

Task<void> SheepdogNode::show_state(std::optional<size_t> which) {
  auto guard = co_await state_.exclusive();
  if (which && list_.empty()) co_await learn_snapshots();
  uint32_t vdi = 0;
  if (!which)
    vdi = co_await find_vdi(cluster_, name_);
  else if (*which < list_.size())
    vdi = list_[*which].vdi;
  else
    no_snapshot();
  co_await load(vdi);
  shows_other_ = which.has_value();
}

Task<void> SheepdogNode::record_snapshot(SnapshotRecord) {
  throw Error(ErrorKind::kUnsupported, "Sheepdog VDIs cannot take over snapshots of other images");
}

// --- changes ---

Task<void> SheepdogNode::create_snapshot(std::string tag) {
  check_writable();
  if (tag.empty() || tag.size() > kLongestName)
    throw Error(ErrorKind::kInvalid, "the tag of a snapshot has 1 to 255 bytes");
  auto guard = co_await state_.exclusive();
  VdiName tagged{.name = name_.name, .tag = tag, .snapshot = 0};
  const uint32_t same = co_await find_or_nothing(cluster_, std::move(tagged));
  if (same != 0) throw Error(ErrorKind::kExists, "there is a snapshot of that name already");
  co_await follow();
  const Inode old = inode_;
  std::vector<std::byte> field(kNameBytes);
  store_text(field, 0, tag);
  co_await write_inode(cluster_, old.vdi, kTagFieldOffset, field);
  std::exception_ptr error;
  uint32_t working = 0;
  try {
    const bool current = co_await is_current();
    if (!current)
      throw Error(ErrorKind::kLocked, "another client has made a snapshot at the same time");
    NewVdi next = successor(old, name_.name);
    working = co_await make_vdi(cluster_, std::move(next));
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    // Where the disk has not become a snapshot its tag goes again.
    std::fill(field.begin(), field.end(), std::byte{});
    const bool current = co_await is_current();
    if (current) co_await write_inode(cluster_, old.vdi, kTagFieldOffset, field);
    std::rethrow_exception(error);
  }
  list_.clear();
  co_await move_lock(old.vdi);
  co_await load(working);
}

// A snapshot of this disk. Throws kNotFound.
Task<uint32_t> SheepdogNode::find_snapshot(std::string which, bool number_first) {
  const auto number = number_in(which);
  uint32_t found = 0;
  for (const bool by_number : {number_first, !number_first}) {
    VdiName wanted{.name = name_.name, .tag = {}, .snapshot = 0};
    if (by_number && number)
      wanted.snapshot = *number;
    else if (!by_number && !which.empty() && which.size() <= kLongestName)
      wanted.tag = which;
    if (!wanted.is_snapshot()) continue;
    found = co_await find_or_nothing(cluster_, std::move(wanted));
    if (found != 0) break;
  }
  if (found == 0) no_snapshot();
  co_return found;
}

// The new working disk is there before the old one goes.
Task<void> SheepdogNode::apply_snapshot(std::string which) {
  check_writable();
  auto guard = co_await state_.exclusive();
  const uint32_t found = co_await find_snapshot(which, true);
  const Inode wanted = co_await read_inode(cluster_, found);
  if (wanted.name != name_.name || !wanted.is_snapshot()) no_snapshot();
  co_await follow();
  const Inode old = inode_;
  VdiName replaced{.name = name_.name, .tag = {}, .snapshot = old.snapshot};
  NewVdi next = successor(wanted, name_.name);
  const uint32_t working = co_await make_vdi(cluster_, std::move(next));
  list_.clear();
  co_await move_lock(old.vdi);
  co_await load(working);
  try {
    co_await delete_vdi(cluster_, std::move(replaced), old.vdi);
  } catch (Error& error) {
    throw error.hint(
        fmt::format("The snapshot was applied. The disk as it was is still there, as snapshot {}.",
                    old.snapshot));
  }
}

Task<void> SheepdogNode::delete_snapshot(std::string name) {
  check_writable();
  auto guard = co_await state_.exclusive();
  const uint32_t found = co_await find_snapshot(name, false);
  const Inode inode = co_await read_inode(cluster_, found);
  if (inode.name != name_.name || !inode.is_snapshot()) no_snapshot();
  VdiName gone{.name = name_.name, .tag = {}, .snapshot = inode.snapshot};
  if (inode.tag == name) gone = {.name = name_.name, .tag = name, .snapshot = 0};
  co_await delete_vdi(cluster_, std::move(gone), found);
  list_.clear();
}

}  // namespace cairn::sheepdog
