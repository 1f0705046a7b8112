#include "format/ova/tar.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "base/arith.h"

namespace cairn::ova {
namespace {

constexpr unsigned kMaxHeaders = 4096;
// Of a header that describes the next one.
constexpr uint64_t kMaxExtraBytes = 64 << 10;
constexpr size_t kNameBytes = 100;
constexpr size_t kSizeAt = 124;
constexpr size_t kSumAt = 148;
constexpr size_t kTypeAt = 156;
constexpr size_t kMagicAt = 257;
constexpr size_t kPrefixAt = 345;
constexpr size_t kPrefixBytes = 155;

// A number in octal digits; or, with the highest bit set, in binary (GNU). Nothing when it is
// neither, or does not fit.
std::optional<uint64_t> number(ByteSpan field) {
  uint64_t value = 0;
  if ((field[0] & std::byte{0x80}) != std::byte{0}) {
    for (size_t i = 0; i < field.size(); ++i) {
      const uint64_t byte = std::to_integer<uint64_t>(field[i]) & (i == 0 ? 0x7f : 0xff);
      if (value >> 55 != 0) return std::nullopt;
      value = value << 8 | byte;
    }
    return value;
  }
  size_t at = 0;
  while (at < field.size() && field[at] == std::byte{' '}) ++at;
  for (; at < field.size(); ++at) {
    const auto digit = std::to_integer<unsigned char>(field[at]);
    if (digit == 0 || digit == ' ') break;
    if (digit < '0' || digit > '7' || value >> 60 != 0) return std::nullopt;
    value = value << 3 | (digit - '0');
  }
  return value;
}

uint64_t sum_of(ByteSpan block) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i)
    sum += i >= kSumAt && i < kSumAt + 8 ? ' ' : std::to_integer<uint64_t>(block[i]);
  return sum;
}

bool is_header(ByteSpan block) {
  return block.size() >= kTarBlock && load_text(block, kMagicAt, 5) == "ustar" &&
         number(block.subspan(kSumAt, 8)) == sum_of(block);
}

void put_octal(MutableByteSpan block, size_t at, size_t width, uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%0*llo", static_cast<int>(width - 1),
                static_cast<unsigned long long>(value));
  store_text(block, at, std::string_view(text).substr(0, width - 1));
}

// What the headers before a file's own say about it.
struct Extra {
  std::optional<std::string> name;
  std::optional<uint64_t> bytes;
};

// Records of "LENGTH KEY=VALUE\n".
void read_pax(std::string_view text, Extra& extra) {
  while (!text.empty()) {
    const size_t blank = text.find(' ');
    size_t length = 0;
    for (size_t i = 0; blank != std::string_view::npos && blank < 8 && i < blank; ++i)
      length = length * 10 + static_cast<size_t>(text[i] - '0');
    if (blank == std::string_view::npos || length <= blank + 1 || length > text.size() ||
        text[length - 1] != '\n')
      invalid("a pax header of the archive is damaged");
    const std::string_view record = text.substr(blank + 1, length - blank - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) invalid("a pax header of the archive is damaged");
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    if (key == "path") extra.name = std::string(value);
    if (key.starts_with("GNU.sparse"))
      throw Error(ErrorKind::kUnsupported, "the archive has sparse files, which are not supported");
    if (key == "size") {
      uint64_t bytes = 0;
      for (const char digit : value) {
        if (digit < '0' || digit > '9' || bytes > UINT64_MAX / 20)
          invalid("a pax header of the archive has the size '" + std::string(value) + "'");
        bytes = bytes * 10 + static_cast<uint64_t>(digit - '0');
      }
      extra.bytes = bytes;
    }
    text.remove_prefix(length);
  }
}

}  // namespace

bool TarHeader::looks_like(ByteSpan head) { return is_header(head); }

std::optional<TarHeader> TarHeader::decode(ByteSpan block) {
  if (is_zero(block.first(kTarBlock))) return std::nullopt;
  if (!is_header(block)) invalid("it is not the header of a tar archive");
  TarHeader header;
  header.name = load_text(block, 0, kNameBytes);
  const std::string prefix = load_text(block, kPrefixAt, kPrefixBytes);
  // GNU's own header has something else in the place of the prefix.
  const bool posix =
      load_text(block, kMagicAt, 6) == "ustar" && block[kMagicAt + 5] == std::byte{0};
  if (posix && !prefix.empty()) header.name = prefix + "/" + header.name;
  header.type = static_cast<char>(block[kTypeAt]);
  if (header.type == 0) header.type = '0';
  const auto bytes = number(block.subspan(kSizeAt, 12));
  if (!bytes) invalid("'" + header.name + "' has no size");
  header.bytes = *bytes;
  return header;
}

void TarHeader::encode(MutableByteSpan block, uint64_t seconds) const {
  if (name.empty() || name.size() > kNameBytes) invalid("no name for a member of an archive");
  std::fill(block.begin(), block.end(), std::byte{0});
  store_text(block, 0, name);
  put_octal(block, 100, 8, 0644);
  put_octal(block, 108, 8, 0);
  put_octal(block, 116, 8, 0);
  if (bytes >> 33 == 0) {
    put_octal(block, kSizeAt, 12, bytes);
  } else {
    // More than the digits hold: in binary.
    block[kSizeAt] = std::byte{0x80};
    store_be<uint64_t>(block, kSizeAt + 4, bytes);
  }
  put_octal(block, 136, 12, seconds);
  block[kTypeAt] = static_cast<std::byte>(type);
  store_text(block, kMagicAt, "ustar");
  store_text(block, kMagicAt + 6, "00");
  put_octal(block, 329, 8, 0);
  put_octal(block, 337, 8, 0);
  put_octal(block, kSumAt, 7, sum_of(block));
  block[kSumAt + 7] = std::byte{' '};
}

Task<std::vector<Member>> read_tar(Node& file) {
  std::vector<Member> members;
  std::vector<std::byte> block(kTarBlock);
  Extra extra;
  uint64_t at = 0;
  for (unsigned headers = 0; at + kTarBlock <= file.length(); ++headers) {
    if (headers == kMaxHeaders)
      invalid(fmt::format("the archive has more than {} members", kMaxHeaders));
    co_await file.read(at, block);
    std::optional<TarHeader> header;
    try {
      header = TarHeader::decode(block);
    } catch (Error& error) {
      throw error.context("the archive is damaged at byte " + std::to_string(at));
    }
    if (!header) break;
    at += kTarBlock;
    const bool about_next =
        header->type == 'x' || header->type == 'g' || header->type == 'L' || header->type == 'K';
    uint64_t bytes = header->bytes;
    if (!about_next && extra.bytes) bytes = *extra.bytes;
    if (bytes > file.length() - at)
      invalid(fmt::format("the archive is cut: '{}' has {} bytes at {} and the file ends at {}",
                          header->name, bytes, at, file.length()));
    if (about_next) {
      if (bytes > kMaxExtraBytes)
        invalid(fmt::format("a header of the archive has {} bytes", bytes));
      std::vector<std::byte> text(bytes);
      co_await file.read(at, text);
      const std::string_view view(reinterpret_cast<const char*>(text.data()), text.size());
      // Of global headers nothing is about single files; of links we want none.
      if (header->type == 'x') read_pax(view, extra);
      if (header->type == 'L') extra.name = std::string(view.substr(0, view.find('\0')));
    } else {
      if (header->type == 'S')
        throw Error(ErrorKind::kUnsupported,
                    "the archive has sparse files, which are not supported");
      std::string name = extra.name.value_or(header->name);
      if (name.starts_with("./")) name.erase(0, 2);
      if (header->type == '0' || header->type == '7')
        members.push_back({.name = std::move(name), .offset = at, .bytes = bytes});
      extra = {};
    }
    at += align_up(bytes, kTarBlock);
  }
  co_return members;
}

}  // namespace cairn::ova
