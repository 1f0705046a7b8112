#include "format/cloop/layout.h"

#include <fmt/core.h>

namespace cairn::cloop {
namespace {

constexpr std::string_view kShell = "#!/bin/sh\n#";
constexpr std::string_view kFreeBsd = "geom_u";  // geom_uzip, geom_uncompress
constexpr std::string_view kQemuKnows =
    "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
constexpr uint32_t kMaxBlocks = UINT32_MAX / 8;
constexpr uint64_t kOffsetMask = (uint64_t{1} << 60) - 1;

std::string preamble(ByteSpan bytes) {
  return load_text(bytes, 0, std::min(bytes.size(), kPreambleBytes));
}

}  // namespace

std::optional<Version> version_of(ByteSpan bytes) {
  const std::string text = preamble(bytes);
  if (!text.starts_with(kShell)) return std::nullopt;
  const std::string version = text.substr(kShell.size(), 4);
  if (version == "V1.0" || version == "V2.0") return Version::kZlib;
  if (version == "L3.0") return Version::kXz;
  if (version == "V4.0") return Version::kMixed;
  return std::nullopt;
}

bool is_known_to_qemu(ByteSpan bytes) {
  return bytes.size() >= kQemuKnows.size() && load_text(bytes, 0, kQemuKnows.size()) == kQemuKnows;
}

Header Header::decode(ByteSpan bytes) {
  Header header;
  header.version = version_of(bytes).value_or(Version::kZlib);
  header.empty_is_zero = preamble(bytes).find(kFreeBsd) != std::string::npos;
  header.block_bytes = load_be<uint32_t>(bytes, kPreambleBytes);
  header.blocks = load_be<uint32_t>(bytes, kPreambleBytes + 4);
  const std::string block_bytes = std::to_string(header.block_bytes);
  if (header.block_bytes % 512 != 0)
    invalid("block_size " + block_bytes + " must be a multiple of 512");
  if (header.block_bytes == 0) invalid("block_size cannot be zero");
  if (header.block_bytes > kMaxBlockBytes)
    invalid("block_size " + block_bytes + " must be 64 MB or less");
  if (header.blocks > kMaxBlocks)
    invalid(fmt::format("n_blocks {} must be {} or less", header.blocks, kMaxBlocks));
  // There QEMU's count of bytes wraps.
  if (header.blocks == kMaxBlocks)
    throw Error(ErrorKind::kNoMemory, "Could not allocate offsets table");
  if (header.table_bytes() > kMaxTableBytes)
    invalid("image requires too many offsets, try increasing block size");
  return header;
}

Entry Entry::decode(uint64_t word, Version version) {
  if (version != Version::kMixed)
    return {word,
            static_cast<unsigned>(version == Version::kXz ? Compressor::kXz : Compressor::kZlib)};
  return {word & kOffsetMask, static_cast<unsigned>(word >> 60)};
}

}  // namespace cairn::cloop
