#include "format/cloop/node.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "codec/stream.h"

namespace cairn {

using namespace cloop;

namespace {

constexpr uint64_t kMaxEncodedBytes = 2 * uint64_t{kMaxBlockBytes};
// Pieces of the table in memory: entries of 512 blocks each.
constexpr uint32_t kPieceBytes = 4096;
constexpr size_t kPieces = 512;
// How much of the table is read at a time when all of it is.
constexpr size_t kScanBytes = 1 << 20;

}  // namespace

Task<void> CloopNode::load(OpenContext& request) {
  refuse_writing(request);
  co_await find_header();
  co_await check_table();
  table_ = std::make_unique<TableCache>(this, file(), "index", kPieceBytes, kPieces,
                                        table_offset_ + header_.table_bytes());
  set_length(header_.size());
}

// Version 4 may have its header at the end of the file, after the table.
Task<void> CloopNode::find_header() {
  const uint64_t end = file().length();
  if (end < kHeaderBytes)
    invalid(
        fmt::format("image file is truncated: it has {} bytes, its header {}", end, kHeaderBytes));
  std::vector<std::byte> bytes(kHeaderBytes);
  co_await file().read(0, bytes);
  table_offset_ = kHeaderBytes;
  if (!version_of(bytes)) {
    std::vector<std::byte> tail(kHeaderBytes);
    co_await file().read(end - kHeaderBytes, tail);
    if (version_of(tail) == Version::kMixed) {
      header_ = Header::decode(tail);
      const uint64_t behind = end - kHeaderBytes;
      if (header_.table_bytes() > behind)
        invalid(fmt::format("image file is truncated: its offset table takes {} bytes",
                            header_.table_bytes()));
      table_offset_ = behind - header_.table_bytes();
      co_return;
    }
  }
  header_ = Header::decode(bytes);
  if (header_.table_bytes() > end - kHeaderBytes)
    invalid(fmt::format("image file is truncated: it has {} bytes, and its offset table ends at {}",
                        end, kHeaderBytes + header_.table_bytes()));
}

Task<void> CloopNode::check_table() {
  std::vector<std::byte> part;
  uint64_t before = 0;
  for (uint64_t index = 0; index <= header_.blocks;) {
    const uint64_t count = std::min<uint64_t>(kScanBytes / 8, uint64_t{header_.blocks} + 1 - index);
    part.resize(count * 8);
    co_await file().read(table_offset_ + index * 8, part);
    for (uint64_t i = 0; i < count; ++i, ++index) {
      const uint64_t offset = Entry::decode(load_be<uint64_t>(part, i * 8), header_.version).offset;
      if (index != 0 && offset < before)
        invalid(fmt::format(
            "offsets not monotonically increasing at index {}, image file is corrupt", index));
      if (index != 0 && offset - before > kMaxEncodedBytes)
        invalid(
            fmt::format("invalid compressed block size at index {}, image file is corrupt", index));
      before = offset;
    }
  }
  if (before > file().length())
    invalid(
        fmt::format("offset table points beyond the end of the file: the last block ends at byte "
                    "{}, the file at {}",
                    before, file().length()));
}

Task<uint64_t> CloopNode::word(uint64_t index) {
  const uint64_t byte = index * 8;
  const uint64_t piece = table_offset_ + align_down(byte, kPieceBytes);
  TableCache::Ref ref = table_->try_get(piece);
  if (!ref) ref = co_await table_->get(piece);
  co_return load_be<uint64_t>(ref.bytes(), byte % kPieceBytes);
}

std::string CloopNode::name_of(uint64_t number) const { return "block " + std::to_string(number); }

Task<EncodedChunk> CloopNode::chunk(uint64_t number) {
  EncodedChunk result;
  if (number >= header_.blocks) co_return result;
  const uint64_t begin_word = co_await word(number);
  const uint64_t end_word = co_await word(number + 1);
  const Entry begin = Entry::decode(begin_word, header_.version);
  const Entry end = Entry::decode(end_word, header_.version);
  // Checked when the image was opened, and again: the file may have changed since.
  if (end.offset < begin.offset || end.offset - begin.offset > kMaxEncodedBytes)
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint(filename() + ": the offset of " + name_of(number + 1) + " has changed.");
  result.offset = number * header_.block_bytes;
  result.bytes = header_.block_bytes;
  result.host_offset = begin.offset;
  result.host_bytes = end.offset - begin.offset;
  result.token = begin.compressor;
  co_return result;
}

Task<Mapping> CloopNode::map(uint64_t offset, uint64_t length) {
  const uint64_t number = offset / header_.block_bytes;
  const uint64_t inside = offset % header_.block_bytes;
  const EncodedChunk block = co_await chunk(number);
  Mapping result;
  result.length = std::min(length, header_.block_bytes - inside);
  if (block.host_bytes == 0 && header_.empty_is_zero) {
    result.kind = Mapping::Kind::kZero;
  } else if (block.token == static_cast<unsigned>(Compressor::kStored) &&
             block.host_bytes == block.bytes) {
    result.kind = Mapping::Kind::kChild;
    result.host = &file();
    result.host_offset = block.host_offset + inside;
  } else {
    result.kind = Mapping::Kind::kEncoded;
    result.compressed = true;
    result.token = number;
  }
  co_return result;
}

void CloopNode::decode(const EncodedChunk& chunk, ByteSpan encoded, MutableByteSpan out) const {
  switch (static_cast<Compressor>(chunk.token)) {
    case Compressor::kZlib:
      return decode_stream(StreamKind::kZlib, encoded, out);
    case Compressor::kXz:
      return decode_stream(StreamKind::kXz, encoded, out);
    case Compressor::kLz4:
      return decode_stream(StreamKind::kLz4, encoded, out);
    case Compressor::kLzo:
      return decode_stream(StreamKind::kLzo, encoded, out);
    case Compressor::kStored:
      break;
    default:
      throw Error(ErrorKind::kCorrupt, "Input/output error")
          .hint(fmt::format("No compressor has the number {}.", chunk.token));
  }
  // Only the last block may be stored short of what is past the end of the data.
  const bool last = chunk.offset + chunk.bytes == length();
  if (encoded.size() > out.size() || (encoded.size() < out.size() && !last))
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint("It is stored plain, with the wrong length.");
  if (!encoded.empty()) std::memcpy(out.data(), encoded.data(), encoded.size());
  std::memset(out.data() + encoded.size(), 0, out.size() - encoded.size());
}

}  // namespace cairn
