#include "protocol/sheepdog/vdi.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/error.h"

namespace cairn::sheepdog {
namespace {

// How long opening waits for the lock of somebody who is about to close the VDI.
constexpr std::chrono::milliseconds kLockWait{2000};
constexpr std::chrono::milliseconds kLockPause{100};
// What a silent daemon gets when a VDI is closed.
constexpr std::chrono::milliseconds kReleasePatience{2000};
// Entries of an index that are read, and cleared, by one message.
constexpr uint64_t kReadEntries = 1 << 18;
constexpr uint64_t kClearEntries = 128;
// Of one VDI; a list of more would take much memory.
constexpr size_t kMostSnapshots = 16'384;
constexpr unsigned kListedAtATime = 16;
constexpr size_t kMostVdis = 1 << 20;  // of a cluster whose snapshots are listed

std::string described(const VdiName& name) {
  std::string text = "VDI '" + name.name + "'";
  if (!name.tag.empty())
    text = fmt::format("Snapshot '{}' of {}", name.tag, text);
  else if (name.snapshot != 0)
    text = fmt::format("Snapshot {} of {}", name.snapshot, text);
  return text;
}

uint32_t checked_vdi(const Operation& operation) {
  const uint32_t vdi = operation.response.vdi;
  if (vdi == 0 || vdi >= kVdis)
    throw Error(ErrorKind::kCorrupt,
                fmt::format("The Sheepdog daemon names the VDI {}, which cannot exist", vdi));
  return vdi;
}

Operation reading(uint64_t object, uint64_t offset, MutableByteSpan out) {
  Operation operation;
  operation.header =
      object_header(Opcode::kReadObject,
                    {.object = object, .copy_from = {}, .offset = static_cast<uint32_t>(offset)});
  operation.out = out;
  return operation;
}

}  // namespace

Task<uint32_t> find_vdi(Cluster& cluster, VdiName name) {
  const std::vector<std::byte> data = name_data(name.name, name.tag);
  Operation operation;
  operation.header = vdi_header(Opcode::kVdiInfo, {.snapshot = name.snapshot});
  operation.data = data;
  co_await cluster.perform(operation, described(name));
  co_return checked_vdi(operation);
}

Task<uint32_t> lock_vdi(Cluster& cluster, std::string name) {
  const std::vector<std::byte> data = name_data(name);
  const auto until = std::chrono::steady_clock::now() + kLockWait;
  while (true) {
    Operation operation;
    operation.header = vdi_header(Opcode::kLockVdi, {});
    operation.data = data;
    operation.repeatable = false;
    const Result result = co_await cluster.ask(operation);
    if (result == Result::kSuccess) co_return checked_vdi(operation);
    if (result != Result::kLocked)
      throw_result(result, described({.name = name, .tag = {}, .snapshot = 0}));
    if (std::chrono::steady_clock::now() >= until)
      throw Error(ErrorKind::kLocked, "VDI '" + name + "' is in use by another client")
          .hint("If that has died, unlock the VDI: dog vdi lock unlock " + name);
    co_await sleep_for(kLockPause);
  }
}

Task<void> release_vdi(Cluster& cluster, uint32_t vdi) {
  Operation operation;
  operation.header = vdi_header(Opcode::kReleaseVdi, {.vdi = vdi});
  operation.repeatable = false;
  operation.patience = kReleasePatience;
  co_await cluster.perform(operation, "The lock of the VDI cannot be released");
}

Task<Inode> read_inode(Cluster& cluster, uint32_t vdi) {
  std::vector<std::byte> bytes(kIndexOffset);
  Operation operation = reading(inode_object(vdi), 0, bytes);
  co_await cluster.perform(operation, "The inode of the VDI cannot be read");
  const Inode inode = Inode::decode(bytes);
  inode.check(vdi);
  co_return inode;
}

Task<std::vector<uint32_t>> read_index(Cluster& cluster, uint32_t vdi, uint64_t first,
                                       uint64_t count) {
  std::vector<uint32_t> index;
  index.reserve(count);
  std::vector<std::byte> bytes(std::min(count, kReadEntries) * 4);
  while (index.size() < count) {
    const uint64_t part = std::min(count - index.size(), kReadEntries);
    const MutableByteSpan out = MutableByteSpan(bytes).first(part * 4);
    Operation operation =
        reading(inode_object(vdi), kIndexOffset + (first + index.size()) * 4, out);
    co_await cluster.perform(operation, "The index of the VDI cannot be read");
    const std::vector<uint32_t> some = decode_index(out);
    index.insert(index.end(), some.begin(), some.end());
  }
  co_return index;
}

Task<void> write_inode(Cluster& cluster, uint32_t vdi, uint64_t offset, ByteSpan bytes) {
  Operation operation;
  operation.header = object_header(
      Opcode::kWriteObject,
      {.object = inode_object(vdi), .copy_from = {}, .offset = static_cast<uint32_t>(offset)});
  operation.data = bytes;
  co_await cluster.perform(operation, "The inode of the VDI cannot be written");
}

Task<void> clear_index(Cluster& cluster, uint32_t vdi, const std::vector<uint32_t>& index,
                       uint64_t first, uint64_t count) {
  const std::vector<std::byte> zeroes(kClearEntries * 4);
  const uint64_t end = std::min<uint64_t>(first + count, index.size());
  for (uint64_t at = first; at < end;) {
    if (index[at] == 0) {
      ++at;
      continue;
    }
    uint64_t part = std::min(end - at, kClearEntries);
    while (index[at + part - 1] == 0) --part;
    co_await write_inode(cluster, vdi, kIndexOffset + at * 4, ByteSpan(zeroes).first(part * 4));
    at += part;
  }
}

Task<uint32_t> make_vdi(Cluster& cluster, NewVdi request) {
  const std::vector<std::byte> data = name_data(request.name);
  Operation operation;
  operation.header = vdi_header(Opcode::kNewVdi, {.size = request.size,
                                                  .vdi = request.base,
                                                  .copies = request.redundancy.copies,
                                                  .copy_policy = request.redundancy.policy,
                                                  .shift = request.shift,
                                                  .snapshot = request.replaces ? 1U : 0U});
  operation.data = data;
  operation.repeatable = false;
  co_await cluster.perform(operation, "VDI '" + request.name + "' cannot be created");
  co_return checked_vdi(operation);
}

Task<uint8_t> default_shift(Cluster& cluster) {
  Operation operation;
  operation.header = vdi_header(Opcode::kClusterDefault, {});
  const Result result = co_await cluster.ask(operation);
  const uint8_t shift = operation.response.default_shift;
  // Older daemons do not know the question; their objects have 4 MiB.
  const bool known = result == Result::kSuccess && shift >= kMinShift && shift <= kMaxShift;
  co_return known ? shift : uint8_t{kUsualShift};
}

Task<void> delete_vdi(Cluster& cluster, VdiName name, uint32_t vdi) {
  const Inode inode = co_await read_inode(cluster, vdi);
  const std::vector<uint32_t> index = co_await read_index(cluster, vdi, 0, inode.object_count());
  co_await clear_index(cluster, vdi, index, 0, index.size());
  const std::vector<std::byte> data = name_data(name.name, name.tag);
  Operation operation;
  operation.header = vdi_header(Opcode::kDeleteVdi, {.snapshot = name.snapshot});
  operation.data = data;
  operation.repeatable = false;
  co_await cluster.perform(operation, described(name) + " cannot be deleted");
}

namespace {

struct Search {
  std::vector<uint32_t> vdis;
  size_t next = 0;
  std::string name;
  std::vector<Inode> found;
  const CancelSource* cancel = nullptr;
};

Task<void> look_at(Cluster& cluster, Search& search, uint32_t vdi, MutableByteSpan bytes) {
  Operation operation = reading(inode_object(vdi), 0, bytes);
  const Result result = co_await cluster.ask(operation);
  if (result == Result::kNoObject) co_return;
  if (result != Result::kSuccess) throw_result(result, "The inode of a VDI cannot be read");
  Inode inode = Inode::decode(bytes);
  if (inode.name != search.name || !inode.is_snapshot() || inode.vdi != vdi) co_return;
  if (search.found.size() == kMostSnapshots)
    throw Error(ErrorKind::kUnsupported, "VDI '" + search.name + "' has more than 16384 snapshots");
  search.found.push_back(std::move(inode));
}

Task<void> look_through(Cluster& cluster, Search& search) {
  std::vector<std::byte> bytes(kIndexOffset);
  try {
    while (search.next < search.vdis.size()) {
      if (search.cancel != nullptr) search.cancel->check();
      co_await look_at(cluster, search, search.vdis[search.next++], bytes);
    }
  } catch (...) {
    // The others need not go through the rest.
    search.next = search.vdis.size();
    throw;
  }
}

}  // namespace

Task<std::vector<Inode>> list_snapshots(Cluster& cluster, std::string name,
                                        const CancelSource* cancel) {
  Search search{.vdis = {}, .next = 0, .name = std::move(name), .found = {}, .cancel = cancel};
  {
    std::vector<std::byte> bitmap(kVdiBitmapBytes);
    Operation operation;
    operation.header = vdi_header(Opcode::kReadVdis, {});
    operation.out = bitmap;
    co_await cluster.perform(operation, "The VDIs of the cluster cannot be listed");
    for (size_t i = 0; i < bitmap.size() && search.vdis.size() <= kMostVdis; ++i)
      for (unsigned bit = 0; bitmap[i] != std::byte{}; ++bit) {
        if ((bitmap[i] & std::byte{1}) != std::byte{})
          search.vdis.push_back(static_cast<uint32_t>(i * 8 + bit));
        bitmap[i] >>= 1;
      }
    if (search.vdis.size() > kMostVdis)
      throw Error(ErrorKind::kUnsupported,
                  "The cluster claims to have more than 1048576 VDIs: snapshots are not listed");
  }
  TaskGroup group;
  for (unsigned i = 0; i < kListedAtATime; ++i) group.spawn(look_through(cluster, search));
  co_await group.join();
  std::sort(search.found.begin(), search.found.end(),
            [](const Inode& a, const Inode& b) { return a.snapshot < b.snapshot; });
  co_return std::move(search.found);
}

}  // namespace cairn::sheepdog
