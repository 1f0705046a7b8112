#include "base/uuid.h"

#include <algorithm>
#include <cerrno>

#include "platform/system.h"

namespace cairn {

namespace {
// The position in a GUID of byte I of the text form.
constexpr size_t kGuidOrder[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}
}  // namespace

Uuid Uuid::random() {
  Uuid result;
  if (!platform::random_bytes(result.bytes.data(), result.bytes.size()))
    throw Error::system(errno, "No random bytes for an UUID");
  result.bytes[6] = (result.bytes[6] & std::byte{0x0f}) | std::byte{0x40};
  result.bytes[8] = (result.bytes[8] & std::byte{0x3f}) | std::byte{0x80};
  return result;
}

Uuid Uuid::parse(std::string_view text) {
  std::string_view rest = text;
  if (rest.size() == 38 && rest.front() == '{' && rest.back() == '}') rest = rest.substr(1, 36);
  Uuid result;
  size_t at = 0;
  bool good = rest.size() == 36;
  for (size_t i = 0; good && i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) good = rest[at++] == '-';
    const int high = digit(rest[at]);
    const int low = digit(rest[at + 1]);
    good = good && high >= 0 && low >= 0;
    result.bytes[i] = static_cast<std::byte>(high * 16 + low);
    at += 2;
  }
  if (!good) throw Error(ErrorKind::kInvalid, "'" + std::string(text) + "' is not a UUID");
  return result;
}

Uuid Uuid::load_guid(ByteSpan bytes, size_t offset) {
  detail::check_bounds(bytes.size(), offset, 16);
  Uuid result;
  for (size_t i = 0; i < 16; ++i) result.bytes[i] = bytes[offset + kGuidOrder[i]];
  return result;
}

void Uuid::store_guid(MutableByteSpan out, size_t offset) const {
  detail::check_bounds(out.size(), offset, 16);
  for (size_t i = 0; i < 16; ++i) out[offset + kGuidOrder[i]] = bytes[i];
}

std::string Uuid::text() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string result;
  for (size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) result += '-';
    result += kDigits[std::to_integer<unsigned>(bytes[i]) >> 4];
    result += kDigits[std::to_integer<unsigned>(bytes[i]) & 15];
  }
  return result;
}

}  // namespace cairn
