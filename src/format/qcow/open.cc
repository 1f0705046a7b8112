#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "crypto/cipher.h"
#include "format/qcow/node.h"

namespace cairn {

using namespace qcow;

namespace {
// L2 tables in memory: pieces of at most this, 4 MiB of them.
constexpr uint64_t kMostSlice = 4096;
constexpr uint64_t kTableMemory = 4 << 20;
constexpr uint64_t kReadAtOnce = 1 << 20;
constexpr uint64_t kFarBehind = 64 << 20;

}  // namespace

Task<void> QcowNode::load(OpenContext& request) {
  begin_opening(request.flags);
  std::vector<std::byte> bytes(kHeaderBytes);
  co_await file_->read(
      0, MutableByteSpan(bytes).first(std::min<uint64_t>(bytes.size(), file_->length())));
  header_ = Header::decode(bytes, file_->filename());
  set_length(header_.disk_bytes());
  Limits& limits = mutable_limits();
  limits.request_alignment = kSector;
  limits.cluster_bytes = cluster();
  if (header_.backing_offset != 0 && header_.backing_offset < file_->length()) {
    std::vector<std::byte> name(
        std::min<uint64_t>(header_.backing_bytes, file_->length() - header_.backing_offset));
    co_await file_->read(header_.backing_offset, name);
    name_.assign(reinterpret_cast<const char*>(name.data()), name.size());
    name_.resize(std::min(name_.find('\0'), name_.size()));
  }
  co_await open_encryption(request);
  NodePtr below = co_await request.open_backing(name_, "");
  if (below) add_child("backing", std::move(below), ChildRole::kBacking);
  if (request.flags.metadata_only) co_return;
  make_cache();
  co_await load_l1();
  end_opening();
}

void QcowNode::make_cache() {
  const uint64_t piece = std::min(header_.l2_bytes(), kMostSlice);
  l2_ = std::make_unique<TableCache>(this, *file_, "l2", static_cast<uint32_t>(piece),
                                     kTableMemory / piece);
}

Task<void> QcowNode::open_encryption(OpenContext& request) {
  const auto format = request.options.string("encrypt.format");
  if (header_.crypt_method == kNoCrypt) {
    if (format)
      invalid("No encryption in image header, but options specified format '" + *format + "'");
    co_return;
  }
  if (format && *format != "aes")
    invalid("Header reported 'aes' encryption format but options specify '" + *format + "'");
  if (request.flags.metadata_only) co_return;
  const Secret& passphrase = context().secrets().for_image(
      request.options, "encrypt.key-secret", "encrypt.key-secret", file_->filename(), false);
  set_payload_cipher(make_legacy_aes(bytes_of(passphrase.bytes())), CipherOffset::kGuest);
}

// No more of the table is kept than the file holds: past its end everything is zero.
Task<void> QcowNode::load_l1() {
  const uint64_t whole = header_.l1_entries() * 8;
  const uint64_t file_end = align_up(file_->length(), kSector);
  const uint64_t there =
      header_.l1_offset < file_end ? std::min(whole, file_end - header_.l1_offset) : 0;
  if (!read_only() && there < whole)
    invalid(
        fmt::format("the L1 table of {} bytes at {} extends past the end of the file: the image "
                    "can only be read",
                    whole, header_.l1_offset));
  std::byte last[8];
  if (there < whole) co_await read_table(*file_, header_.l1_offset + whole - sizeof last, last);
  l1_ = std::vector<std::atomic<uint64_t>>(there / 8);
  std::vector<std::byte> bytes;
  for (uint64_t at = 0; at < l1_.size() * 8; at += bytes.size()) {
    bytes.assign(std::min<uint64_t>(kReadAtOnce, l1_.size() * 8 - at), std::byte{0});
    const uint64_t offset = header_.l1_offset + at;
    if (offset < file_->length())
      co_await file_->read(offset, MutableByteSpan(bytes).first(
                                       std::min<uint64_t>(bytes.size(), file_->length() - offset)));
    for (uint64_t i = 0; i < bytes.size() / 8; ++i)
      l1_[at / 8 + i].store(load_be<uint64_t>(bytes, i * 8), std::memory_order_relaxed);
  }
  if (read_only()) co_return;
  end_ = std::max(file_end, align_up(header_.l1_end(), kSector));
  // A crash may have left a table whose room the file has not got: nothing else goes there.
  const uint64_t far = end_ + kFarBehind;
  for (size_t i = 0; i < l1_.size(); ++i) {
    const uint64_t table = l1_entry(i);
    if (table == 0 || table > INT64_MAX - header_.l2_bytes()) continue;
    if (table > far)
      invalid(
          fmt::format("entry {} of the L1 table points to {}, far past the end of the file: the "
                      "image can only be read",
                      i, table));
    end_ = std::max(end_, align_up(table + header_.l2_bytes(), kSector));
  }
}

}  // namespace cairn
