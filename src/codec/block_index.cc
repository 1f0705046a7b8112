#include "codec/block_index.h"

#include <lzma.h>
#include <zstd.h>

#include <algorithm>
#include <limits>
#include <new>

#include "base/error.h"

namespace cairn {
namespace {

constexpr uint64_t kMostIndexMemory = 64 << 20;
// A file of very many streams is asked for in as many places.
constexpr unsigned kMostPlaces = 4096;
constexpr uint64_t kMostEncodedBytes = kMostPackedBlockBytes + (1 << 20);

[[noreturn]] void no_index(const char* why) { throw Error(ErrorKind::kUnsupported, why); }

[[noreturn]] void bad_block(const char* why) {
  throw Error(ErrorKind::kCorrupt, "Input/output error").hint(why);
}

const uint8_t* in_bytes(ByteSpan bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

void add_packed_block(std::vector<PackedBlock>& blocks, const PackedBlock& block) {
  if (block.bytes > kMostPackedBlockBytes || block.host_bytes > kMostEncodedBytes ||
      blocks.size() == kMostPackedBlocks)
    no_index("the blocks are too large, or too many");
  blocks.push_back(block);
}

class XzIndexReader : public BlockIndexReader {
 public:
  explicit XzIndexReader(uint64_t file_bytes) {
    if (::lzma_file_info_decoder(&stream_, &index_, kMostIndexMemory, file_bytes) != LZMA_OK)
      throw std::bad_alloc();
  }
  ~XzIndexReader() override {
    ::lzma_end(&stream_);
    ::lzma_index_end(index_, nullptr);
  }
  XzIndexReader(const XzIndexReader&) = delete;

  std::optional<uint64_t> wanted() const override { return position_; }

  void take(ByteSpan bytes) override {
    stream_.next_in = in_bytes(bytes);
    stream_.avail_in = bytes.size();
    const lzma_ret result = ::lzma_code(&stream_, LZMA_RUN);
    if (result == LZMA_OK)
      *position_ += bytes.size() - stream_.avail_in;
    else if (result == LZMA_SEEK_NEEDED)
      position_ = stream_.seek_pos;
    else if (result == LZMA_STREAM_END)
      position_.reset();
    else
      no_index("the index is damaged, or too large");
    if (position_ && ++places_ > kMostPlaces) no_index("the index is in too many places");
  }

  std::vector<PackedBlock> blocks() const override {
    std::vector<PackedBlock> result;
    lzma_index_iter each;
    ::lzma_index_iter_init(&each, index_);
    while (!::lzma_index_iter_next(&each, LZMA_INDEX_ITER_NONEMPTY_BLOCK)) {
      if (each.block.uncompressed_size == 0) continue;
      add_packed_block(result, {.offset = each.block.uncompressed_file_offset,
                                .bytes = each.block.uncompressed_size,
                                .host_offset = each.block.compressed_file_offset,
                                .host_bytes = each.block.total_size,
                                .check = each.stream.flags->check});
    }
    return result;
  }

 private:
  lzma_stream stream_ = LZMA_STREAM_INIT;
  lzma_index* index_ = nullptr;
  std::optional<uint64_t> position_ = 0;
  unsigned places_ = 0;
};

// Filters of a block's header, which own their options.
struct XzFilters {
  lzma_filter list[LZMA_FILTERS_MAX + 1] = {};
  ~XzFilters() { ::lzma_filters_free(list, nullptr); }
};

void unpack_xz_block(const PackedBlock& place, ByteSpan encoded, MutableByteSpan out) {
  lzma_block block = {};
  block.version = 1;
  block.check = static_cast<lzma_check>(place.check);
  XzFilters filters;
  filters.list[0].id = LZMA_VLI_UNKNOWN;
  block.filters = filters.list;
  if (encoded.empty() || encoded[0] == std::byte{0}) bad_block("There is no block.");
  block.header_size = lzma_block_header_size_decode(std::to_integer<uint32_t>(encoded[0]));
  if (block.header_size > encoded.size() ||
      ::lzma_block_header_decode(&block, nullptr, in_bytes(encoded)) != LZMA_OK)
    bad_block("The block's header is damaged.");
  // Nothing refers to more than the block has.
  const auto most = static_cast<uint32_t>(std::max<size_t>(out.size(), LZMA_DICT_SIZE_MIN));
  for (lzma_filter* each = filters.list; each->id != LZMA_VLI_UNKNOWN; ++each) {
    if (each->id != LZMA_FILTER_LZMA2) continue;
    auto* options = static_cast<lzma_options_lzma*>(each->options);
    options->dict_size = std::min(options->dict_size, most);
  }
  size_t taken = block.header_size;
  size_t made = 0;
  const lzma_ret result =
      ::lzma_block_buffer_decode(&block, nullptr, in_bytes(encoded), &taken, encoded.size(),
                                 reinterpret_cast<uint8_t*>(out.data()), &made, out.size());
  if (result == LZMA_MEM_ERROR) throw std::bad_alloc();
  if (result != LZMA_OK) bad_block("The xz data is damaged.");
  if (made != out.size() || taken != encoded.size())
    bad_block("The block has another size than the index says.");
}

// zstd's seekable format: the last frame, which others skip, is a table of the sizes of all
// others, little endian.
class ZstdIndexReader : public BlockIndexReader {
 public:
  explicit ZstdIndexReader(uint64_t file_bytes) : file_bytes_(file_bytes), begin_(file_bytes) {
    if (file_bytes < kFrameHeaderBytes + kFooterBytes) no_index("the file is too short");
    begin_ -= kFooterBytes;
  }

  std::optional<uint64_t> wanted() const override {
    if (entries_ && table_.size() == table_bytes()) return std::nullopt;
    return begin_ + table_.size();
  }

  void take(ByteSpan bytes) override {
    if (entries_) {
      bytes = bytes.first(std::min(bytes.size(), table_bytes() - table_.size()));
      table_.insert(table_.end(), bytes.begin(), bytes.end());
      return;
    }
    if (bytes.size() < kFooterBytes) no_index("the table is cut");
    if (load_le<uint32_t>(bytes, 5) != kSeekableMagic) no_index("there is no table");
    const auto descriptor = std::to_integer<unsigned>(bytes[4]);
    if ((descriptor & kReservedBits) != 0) no_index("the table is of another version");
    entry_bytes_ = (descriptor & kChecksumBit) != 0 ? 12 : 8;
    const uint32_t count = load_le<uint32_t>(bytes, 0);
    if (count > kMostPackedBlocks) no_index("the frames are too many");
    entries_ = count;
    if (table_bytes() > file_bytes_) no_index("the table is longer than the file");
    begin_ = file_bytes_ - table_bytes();
  }

  std::vector<PackedBlock> blocks() const override {
    if (load_le<uint32_t>(table_, 0) != kTableMagic ||
        load_le<uint32_t>(table_, 4) != table_bytes() - kFrameHeaderBytes)
      no_index("the table is damaged");
    std::vector<PackedBlock> result;
    PackedBlock next;
    for (size_t at = kFrameHeaderBytes; at < table_bytes() - kFooterBytes; at += entry_bytes_) {
      next.host_bytes = load_le<uint32_t>(table_, at);
      next.bytes = load_le<uint32_t>(table_, at + 4);
      if (next.bytes != 0) add_packed_block(result, next);
      next.offset += next.bytes;
      next.host_offset += next.host_bytes;
    }
    if (next.host_offset != begin_) no_index("the table does not describe the file");
    return result;
  }

 private:
  static constexpr size_t kFrameHeaderBytes = 8;
  static constexpr size_t kFooterBytes = 9;
  static constexpr uint32_t kTableMagic = 0x184d2a5e;
  static constexpr uint32_t kSeekableMagic = 0x8f92eab1;
  static constexpr unsigned kChecksumBit = 0x80;
  static constexpr unsigned kReservedBits = 0x7c;

  size_t table_bytes() const { return kFrameHeaderBytes + *entries_ * entry_bytes_ + kFooterBytes; }

  const uint64_t file_bytes_;
  uint64_t begin_;  // of the table; of its footer, until that was read
  std::optional<size_t> entries_;
  size_t entry_bytes_ = 0;
  std::vector<std::byte> table_;
};

void unpack_zstd_frame(ByteSpan encoded, MutableByteSpan out) {
  const size_t made = ::ZSTD_decompress(out.data(), out.size(), encoded.data(), encoded.size());
  if (::ZSTD_isError(made) != 0) bad_block("The zstd data is damaged.");
  if (made != out.size()) bad_block("The frame has another size than the table says.");
}

}  // namespace

std::unique_ptr<BlockIndexReader> make_block_index_reader(Packing packing, uint64_t file_bytes) {
  if (packing == Packing::kXz) return std::make_unique<XzIndexReader>(file_bytes);
  if (packing == Packing::kZstd) return std::make_unique<ZstdIndexReader>(file_bytes);
  return nullptr;
}

void unpack_block(Packing packing, const PackedBlock& block, ByteSpan encoded,
                  MutableByteSpan out) {
  if (packing == Packing::kXz)
    unpack_xz_block(block, encoded, out);
  else
    unpack_zstd_frame(encoded, out);
}

}  // namespace cairn
