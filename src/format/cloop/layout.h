#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"

// The header and the table entries of a cloop image, free of I/O. Source: the headers and the
// kernel module's description that come with cloop; docs/formats/cloop.md lists the fields.
namespace cairn::cloop {

inline constexpr size_t kPreambleBytes = 128;
inline constexpr size_t kHeaderBytes = 136;  // preamble, block size, number of blocks
inline constexpr uint32_t kMaxBlockBytes = 64 << 20;
inline constexpr uint64_t kMaxTableBytes = 512 << 20;

// How blocks are compressed, and where that is written.
enum class Version : uint8_t {
  kZlib,   // "V1.0", "V2.0", and every preamble that says nothing
  kXz,     // "L3.0": all blocks are xz or lzma streams
  kMixed,  // "V4.0": the top four bits of a table entry name the block's compressor
};

// Nothing when the preamble at the start of BYTES is none that we know.
std::optional<Version> version_of(ByteSpan bytes);
// Whether BYTES begin with the preamble by which QEMU knows the format.
bool is_known_to_qemu(ByteSpan bytes);

struct Header {
  Version version = Version::kZlib;
  bool empty_is_zero = false;  // FreeBSD's writers: blocks of no bytes are zeroes
  uint32_t block_bytes = 0;
  uint32_t blocks = 0;

  // Throws kInvalid in the order and with the words of QEMU.
  static Header decode(ByteSpan bytes);
  uint64_t size() const { return uint64_t{blocks} * block_bytes; }
  uint64_t table_bytes() const { return (uint64_t{blocks} + 1) * 8; }
};

enum class Compressor : uint8_t { kZlib, kStored, kXz, kLz4, kLzo };

// Where a block begins, and how it is compressed.
struct Entry {
  uint64_t offset = 0;
  unsigned compressor = 0;  // of a Compressor, when it is known

  static Entry decode(uint64_t word, Version version);
};

}  // namespace cairn::cloop
