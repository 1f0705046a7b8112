#include <algorithm>
#include <cerrno>
#include <utility>

#include "block/context.h"
#include "protocol/rbd/node.h"

namespace cairn::rbd {
namespace {

// An image has few; more than that is no list.
constexpr int kMostSnapshots = 65536;

std::vector<SnapshotRecord> list_snapshots(const OpenImage& image) {
  const RbdLibrary& library = RbdLibrary::get();
  std::vector<rbd_snap_info_t> list(16);
  int count = 0;
  for (;;) {
    int room = static_cast<int>(list.size());
    count = library.rbd_snap_list(image.handle(), list.data(), &room);
    if (count != -ERANGE) break;
    if (room <= static_cast<int>(list.size()) || room > kMostSnapshots)
      throw Error(ErrorKind::kIo, "the image has a list of snapshots that makes no sense");
    list.resize(static_cast<size_t>(room));
  }
  check(count, "failed to list the snapshots of the image");
  std::vector<SnapshotRecord> result;
  for (size_t i = 0; i < std::min(list.size(), static_cast<size_t>(count)); ++i) {
    SnapshotRecord record;
    record.id = record.name = list[i].name == nullptr ? "" : list[i].name;
    record.disk_bytes = list[i].size;
    timespec made = {};
    if (library.rbd_snap_get_timestamp(image.handle(), list[i].id, &made) >= 0) {
      record.date_seconds = static_cast<uint32_t>(made.tv_sec);
      record.date_nanoseconds = static_cast<uint32_t>(made.tv_nsec);
    }
    result.push_back(std::move(record));
  }
  if (count > 0) library.rbd_snap_list_end(list.data());
  return result;
}

}  // namespace

Task<void> RbdNode::learn_snapshots() {
  const auto list = std::make_shared<std::vector<SnapshotRecord>>();
  Image::Work work = [list](const OpenImage& image) { *list = list_snapshots(image); };
  co_await image_.call(std::move(work));
  snapshots_ = std::move(*list);
  // QEMU knows no dates, and shows the size of the disk as that of the machine's state.
  if (context().profile.extensions) co_return;
  for (SnapshotRecord& each : snapshots_) {
    each.date_seconds = each.date_nanoseconds = 0;
    each.vm_state_bytes = each.disk_bytes;
    each.icount = 0;
  }
}

std::vector<SnapshotRecord> RbdNode::snapshots() const { return snapshots_; }

Value RbdNode::snapshots_info() const {
  if (snapshots_.empty()) return {};
  Value list = Value::array();
  for (const SnapshotRecord& snapshot : snapshots_) {
    Value entry = Value::object();
    entry.set("id", snapshot.id);
    entry.set("name", snapshot.name);
    entry.set("vm-state-size", snapshot.vm_state_bytes);
    entry.set("date-sec", uint64_t{snapshot.date_seconds});
    entry.set("date-nsec", uint64_t{snapshot.date_nanoseconds});
    entry.set("vm-clock-sec", uint64_t{0});
    entry.set("vm-clock-nsec", uint64_t{0});
    if (snapshot.icount) entry.set("icount", *snapshot.icount);
    list.push_back(std::move(entry));
  }
  return list;
}

Task<void> RbdNode::call_with(std::string text, int (*call)(const OpenImage&, const char*),
                              const char* what, bool lengthy) {
  Image::Work work = [text = std::move(text), call, what](const OpenImage& image) {
    check(call(image, text.c_str()), what);
  };
  co_await image_.call(std::move(work), lengthy);
}

Task<void> RbdNode::create_snapshot(std::string name) {
  check_writable();
  if (name.find_first_of("@/") != std::string::npos)
    invalid("The name of a snapshot in a Ceph cluster cannot have '@' or '/'");
  co_await call_with(
      std::move(name),
      [](const OpenImage& image, const char* text) {
        return RbdLibrary::get().rbd_snap_create(image.handle(), text);
      },
      "", false);
  co_await learn_snapshots();
}

Task<void> RbdNode::apply_snapshot(std::string which) {
  check_writable();
  co_await learn_snapshots();
  if (!has_snapshot(which)) throw Error::system(ENOENT).context("Failed to load snapshot");
  co_await call_with(
      std::move(which),
      [](const OpenImage& image, const char* text) {
        return RbdLibrary::get().rbd_snap_rollback(image.handle(), text);
      },
      "", true);
  extents_->forget();
  co_await learn_size();
}

Task<void> RbdNode::delete_snapshot(std::string name) {
  check_writable();
  co_await learn_snapshots();
  if (!has_snapshot(name)) throw Error(ErrorKind::kNotFound, "snapshot not found");
  co_await call_with(
      std::move(name),
      [](const OpenImage& image, const char* text) {
        return RbdLibrary::get().rbd_snap_remove(image.handle(), text);
      },
      "failed to remove snap", false);
  co_await learn_snapshots();
}

bool RbdNode::has_snapshot(const std::string& name) const {
  return std::any_of(snapshots_.begin(), snapshots_.end(),
                     [&](const SnapshotRecord& each) { return each.name == name; });
}

// An empty NAME: the image as it is now.
Task<void> RbdNode::show(std::string name) {
  co_await call_with(
      std::move(name),
      [](const OpenImage& image, const char* text) {
        return RbdLibrary::get().rbd_snap_set(image.handle(), *text == 0 ? nullptr : text);
      },
      "failed to show the snapshot", false);
  extents_->forget();
  co_await learn_size();
}

Task<void> RbdNode::show_snapshot(std::string id, std::string name) {
  const std::string& which = name.empty() ? id : name;
  const bool same = id.empty() || name.empty() || id == name;
  co_await learn_snapshots();
  if (!same || !has_snapshot(which)) throw Error(ErrorKind::kNotFound, "Can't find snapshot");
  co_await show(which);
}

Task<void> RbdNode::show_state(std::optional<size_t> which) {
  if (!which) {
    co_await show(image_.target().snapshot.value_or(""));
    co_return;
  }
  if (*which >= snapshots_.size()) throw Error::system(ENOENT);
  co_await show(snapshots_[*which].name);
}

Task<void> RbdNode::record_snapshot(SnapshotRecord record) {
  if (record.vm_state_bytes != 0)
    throw Error(ErrorKind::kUnsupported,
                "a snapshot in a Ceph cluster cannot hold the state of a machine");
  return create_snapshot(std::move(record.name));
}

}  // namespace cairn::rbd
