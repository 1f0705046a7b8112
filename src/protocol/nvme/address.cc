#include "protocol/nvme/address.h"

#include <cctype>
#include <charconv>

#include "base/error.h"

namespace cairn::nvme {
namespace {

// A template of an address: x is a hexadecimal digit, 7 one below 8.
constexpr std::string_view kFull = "xxxx:xx:xx.7", kShort = "xx:xx.7";

bool matches(std::string_view text, std::string_view pattern) {
  if (text.size() != pattern.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i], wanted = pattern[i];
    if (wanted == 'x' ? std::isxdigit(static_cast<unsigned char>(c)) == 0
                      : (wanted == '7' ? c < '0' || c > '7' : c != wanted))
      return false;
  }
  return true;
}

}  // namespace

std::optional<PciAddress> PciAddress::find(std::string_view text) {
  std::string full(text);
  if (matches(text, kShort)) full = "0000:" + full;
  if (!matches(full, kFull)) return std::nullopt;
  for (char& c : full) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return PciAddress(std::move(full));
}

PciAddress PciAddress::parse(std::string_view text) {
  if (auto address = find(text)) return *std::move(address);
  throw Error(ErrorKind::kInvalid, "'" + std::string(text) + "' is not the address of a PCI device")
      .hint(
          "An address is DOMAIN:BUS:SLOT.FUNCTION, such as 0000:06:0d.0. `cairn nvme list` shows "
          "those of this machine.");
}

uint32_t parse_namespace(std::string_view text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number == 0 ||
      number == UINT32_MAX)
    invalid("Invalid namespace '" + std::string(text) + "', positive number expected");
  return number;
}

}  // namespace cairn::nvme
