#include "base/arith.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// The first cluster holds header, extensions and name: it changes as a whole, after a flush of
// everything that relies on the old name. Extensions stand before the name, so a cut write leaves a
// readable header with the old or the new offset.
Task<void> Qcow2Node::change_backing(std::string name, std::string format) {
  if (read_only()) throw Error::system(EACCES);
  if (!name.empty() && raw_data_file()) throw Error::system(EINVAL);
  if (name.size() > kMaxBackingName) throw Error::system(EINVAL);
  if (!name.empty() && format.empty())
    throw Error(ErrorKind::kInvalid, "backing format must be specified");
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  Header header = header_;
  header.incompatible = incompatible_now();
  Extensions extensions = extensions_;
  extensions.backing_name = name;
  extensions.backing_format = name.empty() ? std::string() : format;
  std::vector<std::byte> bytes;
  try {
    bytes = encode_first_cluster(header, extensions);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNoSpace) throw;
    throw Error(ErrorKind::kNoSpace, "No space left in the file header");
  }
  co_await file_->write(0, bytes);
  co_await file_->flush();
  header.incompatible = header_.incompatible;
  header_ = header;
  extensions_ = extensions;
}

Task<bool> Qcow2Node::make_empty() {
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  const bool done = co_await start_over();
  if (done) co_return true;
  const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
  for (uint64_t at = 0; at < length();) {
    if ((l1_entry(at / header_.l2_range()) & kOffsetMask) == 0) {
      at = (at / header_.l2_range() + 1) * header_.l2_range();
      continue;
    }
    const Slice held = co_await writable_slice(at);
    for (size_t i = 0; i < entries; ++i, at += cluster()) {
      const Entry old = load_entry(held.ref, i);
      if (old.word == 0 && old.bitmap == 0) continue;
      check_entry(old, at);
      store_entry(held.ref, i, {});
      release_entry(old, Freed::kSnapshot);
    }
    l2_->mark_dirty(held.ref);
    co_await apply_frees_if_many();
  }
  co_await flush_mapped();
  co_return true;
}

}  // namespace cairn
