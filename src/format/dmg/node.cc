#include "format/dmg/node.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "codec/stream.h"
#include "format/dmg/plist.h"

namespace cairn {

using namespace dmg;

namespace {

constexpr std::string_view kKindNames[] = {"zeroes",
                                           "plain",
                                           "ADC",
                                           "zlib",
                                           "bzip2",
                                           "LZFSE",
                                           "xz",
                                           "of an unknown type",
                                           "plain, cut or too short",
                                           "missing"};

// What a file without a trailer is, where that is known.
std::string kind_without_trailer(ByteSpan head, ByteSpan tail) {
  const std::string begin = load_text(head, 0, 8);
  if (begin == "encrcdsa" || load_text(tail, tail.size() - 8, 8) == "cdsaencr")
    return "The image is encrypted, which Cairn cannot read; decrypt it first, for example with "
           "hdiutil.";
  if (begin.starts_with("sprs"))
    return "The image is a sparse one, which is another format; convert it first, for example "
           "with hdiutil.";
  return "A plain disk that is only called .dmg is opened with the format raw.";
}

}  // namespace

// --- opening ---

Task<void> DmgNode::load(OpenContext& request) {
  refuse_writing(request);
  const Trailer trailer = co_await find_trailer();
  if (trailer.resource_bytes != 0) {
    std::vector<std::byte> fork(kForkHeaderBytes);
    if (trailer.resource_bytes < fork.size())
      invalid("resource fork: it is shorter than its header");
    co_await file().read(trailer.resource_offset, fork);
    fork.resize(fork_extent(fork, trailer.resource_bytes));
    co_await file().read(trailer.resource_offset, fork);
    each_record(fork, [&](ByteSpan record) { add_table(record, trailer); });
  } else {
    std::vector<std::byte> plist(trailer.plist_bytes);
    co_await file().read(trailer.plist_offset, plist);
    each_data(plist, [&](ByteSpan data) { add_table(data, trailer); });
  }
  if (!any_table_) invalid("there is no block table that says what the disk is made of");
  cover(trailer.sectors);
  set_length(trailer.sectors * kSector);
}

Task<Trailer> DmgNode::find_trailer() {
  const uint64_t end = file().length();
  if (end < kTrailerBytes) invalid("dmg file must be at least 512 bytes long");
  const Window window = trailer_window(end);
  std::vector<std::byte> bytes(window.bytes);
  co_await file().read(window.offset, bytes);
  for (size_t at = 0; at + 4 <= bytes.size(); ++at) {
    if (load_be<uint32_t>(bytes, at) != kTrailerMagic) continue;
    std::vector<std::byte> trailer(kTrailerBytes);
    co_await file().read(window.offset + at, trailer);
    co_return Trailer::decode(trailer, window.offset + at);
  }
  std::vector<std::byte> head(kTrailerBytes);
  std::vector<std::byte> tail(kTrailerBytes);
  co_await file().read(0, head);
  co_await file().read(end - tail.size(), tail);
  Error error(ErrorKind::kInvalid, "Could not locate UDIF trailer in dmg file");
  if (context().profile.explanations) error.hint(kind_without_trailer(head, tail));
  throw error;
}

void DmgNode::add_table(ByteSpan bytes, const Trailer& trailer) {
  const std::optional<BlockTable> table = BlockTable::decode(bytes);
  if (!table) return;
  any_table_ = true;
  for (const Chunk& chunk : table->chunks) add_chunk(chunk, *table, trailer);
}

DmgNode::Kind DmgNode::kind_of(ChunkType type) {
  switch (type) {
    case ChunkType::kZero:
    case ChunkType::kIgnore:
      return Kind::kZero;
    case ChunkType::kRaw:
      return Kind::kRaw;
    case ChunkType::kAdc:
      return Kind::kAdc;
    case ChunkType::kZlib:
      return Kind::kZlib;
    case ChunkType::kBzip2:
      return Kind::kBzip2;
    case ChunkType::kLzfse:
      return Kind::kLzfse;
    case ChunkType::kXz:
      return Kind::kXz;
    case ChunkType::kComment:
    case ChunkType::kTerminator:
      break;
  }
  return Kind::kUnknown;
}

void DmgNode::add_chunk(const Chunk& chunk, const BlockTable& table, const Trailer& trailer) {
  if (chunk.type == ChunkType::kComment || chunk.type == ChunkType::kTerminator ||
      chunk.sectors == 0)
    return;
  Run run;
  run.kind = kind_of(chunk.type);
  if (run.kind == Kind::kUnknown && !warned_) {
    char type[12];
    std::snprintf(type, sizeof type, "%08x", static_cast<unsigned>(chunk.type));
    context().warn("Image contains chunks of unknown type " + std::string(type) +
                   ", accessing them will result in I/O errors");
    warned_ = true;
  }
  // What is past the end of the disk is not reached.
  const auto begin = checked_add(table.first_sector, chunk.first_sector);
  if (!begin || *begin >= trailer.sectors) return;
  run.begin = *begin;
  run.end = checked_add(run.begin, chunk.sectors).value_or(UINT64_MAX);
  if (run.kind != Kind::kZero && run.kind != Kind::kUnknown) {
    const auto start = checked_add(trailer.data_offset, table.data_start);
    const auto place = start ? checked_add(*start, chunk.offset) : std::nullopt;
    const uint64_t end = file().length();
    run.host_offset = place.value_or(UINT64_MAX);
    run.host_bytes = static_cast<uint32_t>(chunk.bytes);
    const bool cut = run.host_offset > end || chunk.bytes > end - run.host_offset;
    if (run.kind == Kind::kRaw && (cut || chunk.bytes < chunk.sectors * kSector))
      run.kind = Kind::kBroken;
  }
  runs_.push_back(run);
}

// Sorts the runs, and fills what they leave open.
void DmgNode::cover(uint64_t sectors) {
  std::sort(runs_.begin(), runs_.end(),
            [](const Run& a, const Run& b) { return a.begin < b.begin; });
  std::vector<Run> covered;
  covered.reserve(runs_.size());
  uint64_t at = 0;
  for (const Run& run : runs_) {
    if (run.begin < at)
      invalid(fmt::format("chunks overlap: two have sector {} of the disk", run.begin));
    if (run.begin > at) covered.push_back({.begin = at, .end = run.begin});
    covered.push_back(run);
    at = run.end;
  }
  if (at < sectors) covered.push_back({.begin = at, .end = sectors});
  runs_ = std::move(covered);
}

// --- reading ---

size_t DmgNode::run_at(uint64_t sector) const {
  const auto behind = std::upper_bound(runs_.begin(), runs_.end(), sector,
                                       [](uint64_t at, const Run& run) { return at < run.begin; });
  return static_cast<size_t>(behind - runs_.begin()) - 1;
}

Task<Mapping> DmgNode::map(uint64_t offset, uint64_t length) {
  const size_t number = run_at(offset / kSector);
  const Run& run = runs_[number];
  const uint64_t inside = offset - run.begin * kSector;
  Mapping result;
  // A run of zeroes may end where bytes can no longer be counted.
  result.length = std::min(length, std::min(run.end, kMaxDiskBytes / kSector) * kSector - offset);
  if (run.kind == Kind::kZero) {
    result.kind = Mapping::Kind::kZero;
  } else if (run.kind == Kind::kRaw) {
    result.kind = Mapping::Kind::kChild;
    result.host = &file();
    result.host_offset = run.host_offset + inside;
  } else {
    result.kind = Mapping::Kind::kEncoded;
    result.compressed = run.kind < Kind::kUnknown;
    result.token = number;
  }
  co_return result;
}

std::string DmgNode::name_of(uint64_t number) const {
  return fmt::format("chunk {} ({})", number, kKindNames[static_cast<size_t>(runs_[number].kind)]);
}

Task<EncodedChunk> DmgNode::chunk(uint64_t number) {
  EncodedChunk result;
  if (number >= runs_.size()) co_return result;
  const Run& run = runs_[number];
  if (run.kind == Kind::kZero || run.kind == Kind::kRaw) co_return result;
  if (run.kind >= Kind::kUnknown)
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint(fmt::format("{}: {}, at byte {} of the disk, cannot be read.", filename(),
                          name_of(number), run.begin * kSector));
  result.offset = run.begin * kSector;
  result.bytes = (run.end - run.begin) * kSector;
  result.host_offset = run.host_offset;
  result.host_bytes = run.host_bytes;
  result.token = static_cast<uint64_t>(run.kind);
  co_return result;
}

void DmgNode::decode(const EncodedChunk& chunk, ByteSpan encoded, MutableByteSpan out) const {
  switch (static_cast<Kind>(chunk.token)) {
    case Kind::kAdc:
      return decode_stream(StreamKind::kAdc, encoded, out);
    case Kind::kZlib:
      return decode_stream(StreamKind::kZlib, encoded, out);
    case Kind::kBzip2:
      return decode_stream(StreamKind::kBzip2, encoded, out);
    case Kind::kLzfse:
      return decode_stream(StreamKind::kLzfse, encoded, out);
    default:
      return decode_stream(StreamKind::kXz, encoded, out);
  }
}

}  // namespace cairn
