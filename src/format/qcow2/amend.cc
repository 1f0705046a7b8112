#include <cstdio>
#include <optional>

#include "base/arith.h"
#include "block/driver.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Options of an existing image, changed in this order: upgrade, keys, refcount width, data file,
// lazy refcounts, size, downgrade. Everything that can be refused from the header alone is refused
// before the first write. Each step leaves a whole image: new structures are written and flushed
// first, then the header changes in one write.

namespace {

// What is asked for, checked.
struct Changes {
  std::optional<unsigned> version;
  bool encryption = false;
  std::optional<unsigned> refcount_order;
  std::optional<std::string> data_file;
  bool drop_raw = false;
  std::optional<bool> lazy;
  std::optional<uint64_t> size;
};

Changes read_changes(const Options& options, const Header& header, const Extensions& extensions) {
  Changes result;
  if (options.has_tree("encrypt")) {
    if (header.crypt_method == 0)
      throw Error(ErrorKind::kInvalid, "Can't amend encryption options - encryption not present");
    result.encryption = true;
  }
  if (const auto level = options.string("compat")) {
    if (*level == "0.10" || *level == "v2")
      result.version = 2;
    else if (*level == "1.1" || *level == "v3")
      result.version = 3;
    else
      throw Error(ErrorKind::kInvalid, "Unknown compatibility level " + *level);
  }
  const bool data_file = (header.incompatible & kIncompatDataFile) != 0;
  result.data_file = options.string("data_file");
  if (result.data_file && !data_file)
    throw Error(ErrorKind::kInvalid,
                "data-file can only be set for images that use an external data file");
  const auto raw = options.boolean("data_file_raw");
  if (raw.value_or(false) && !(header.autoclear & kAutoclearRawData))
    throw Error(ErrorKind::kInvalid, "data-file-raw cannot be set on existing images");
  result.drop_raw = raw && !*raw;
  if (const auto bits = options.number("refcount_bits")) {
    if (*bits > 64 || !is_power_of_two(*bits))
      throw Error(ErrorKind::kInvalid,
                  "Refcount width must be a power of two and may not exceed 64 bits");
    result.refcount_order = static_cast<unsigned>(__builtin_ctzll(*bits));
  }
  const auto name = options.string("backing_file");
  const auto format = options.string("backing_fmt");
  // Who names one of the two has to name both as they are.
  if ((name || format) && (name.value_or("") != extensions.backing_name ||
                           format.value_or("") != extensions.backing_format ||
                           (name && name->empty()) || (format && format->empty())))
    throw Error(ErrorKind::kInvalid, "Cannot amend the backing file")
        .hint("You can use 'qemu-img rebase' instead.");
  const unsigned version = result.version.value_or(header.version);
  if (result.refcount_order && version < 3 && *result.refcount_order != 4)
    throw Error(ErrorKind::kInvalid,
                "Refcount widths other than 16 bits require compatibility level 1.1 or above (use "
                "compat=1.1 or greater)");
  result.lazy = options.boolean("lazy_refcounts");
  // What is on already goes with the downgrade.
  const bool was_lazy = (header.compatible & kCompatLazyRefcounts) != 0;
  if (result.lazy.value_or(false) && version < 3 && !was_lazy)
    throw Error(ErrorKind::kInvalid,
                "Lazy refcounts only supported with compatibility level 1.1 and above (use "
                "compat=1.1 or greater)");
  result.size = options.size("size");
  if (result.size && !is_aligned(*result.size, 512))
    throw Error(ErrorKind::kInvalid, "The new size must be a multiple of 512");
  if (result.version == 2u && header.version >= 3) {
    if (result.refcount_order.value_or(header.refcount_order) != 4)
      throw Error(ErrorKind::kInvalid, "compat=0.10 requires refcount_bits=16");
    if (data_file) throw Error(ErrorKind::kInvalid, "Cannot downgrade an image with a data file");
    const uint64_t kept = header.incompatible & ~(kIncompatCompression | kIncompatDirty);
    if (kept != 0) {
      char text[80];
      std::snprintf(text, sizeof text,
                    "Cannot downgrade an image with incompatible features 0x%llx set",
                    static_cast<unsigned long long>(kept));
      throw Error(ErrorKind::kInvalid, text);
    }
  }
  return result;
}

}  // namespace

Task<void> Qcow2Node::amend(AmendRequest request) {
  if (read_only()) throw Error::system(EACCES);
  const Changes changes = read_changes(request.options, header_, extensions_);
  {
    RangeLock::Guard all;
    co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
    co_await end_lazy();
  }
  if (changes.version == 3u && header_.version < 3) co_await upgrade();
  if (changes.encryption) co_await amend_encryption(request);
  if (changes.refcount_order && *changes.refcount_order != header_.refcount_order)
    co_await change_refcount_width(*changes.refcount_order, request);
  {
    RangeLock::Guard all;
    co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
    const bool lazy = (header_.compatible & kCompatLazyRefcounts) != 0;
    const bool new_lazy = changes.lazy.value_or(lazy) && changes.version != 2u;
    const bool drop_raw = changes.drop_raw && (header_.autoclear & kAutoclearRawData) != 0;
    if (changes.data_file || drop_raw || new_lazy != lazy) {
      co_await flush_mapped();
      if (changes.data_file) extensions_.data_file = *changes.data_file;
      if (drop_raw) header_.autoclear &= ~kAutoclearRawData;
      header_.compatible &= ~kCompatLazyRefcounts;
      if (new_lazy) header_.compatible |= kCompatLazyRefcounts;
      co_await write_header();
    }
  }
  if (changes.size && *changes.size != 0 && *changes.size != length()) {
    ResizeRequest resize{.length = *changes.size};
    co_await Node::resize(resize);
  }
  if (changes.version == 2u && header_.version >= 3) co_await downgrade(request);
}

// Version 3 wants the size of the disk in every snapshot: the table is written again before the
// header says so.
Task<void> Qcow2Node::upgrade() {
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  if (!snapshots_.empty()) co_await store_snapshots(snapshots_);
  co_await flush_mapped();
  header_.version = 3;
  header_.header_length = Header::kBytesV3;
  co_await write_header();
}

}  // namespace cairn
