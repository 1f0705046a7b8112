#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cairn::nvme {

// The place of a PCI function. Its text becomes part of paths: it is never anything else.
class PciAddress {
 public:
  // "DDDD:BB:SS.F" in hexadecimal digits, or "BB:SS.F" in domain 0. Throws kInvalid.
  static PciAddress parse(std::string_view text);
  // Nothing where TEXT is no such address.
  static std::optional<PciAddress> find(std::string_view text);

  // With the domain, in lower case.
  const std::string& text() const { return text_; }

 private:
  explicit PciAddress(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

// The number of a namespace: decimal, from 1 on. Throws kInvalid.
uint32_t parse_namespace(std::string_view text);

}  // namespace cairn::nvme
