#include "format/vpc/azure.h"

#include <fmt/core.h>

#include "base/arith.h"
#include "format/vpc/layout.h"

namespace cairn::vpc {

Task<std::vector<std::string>> azure_findings(Node& file) {
  std::vector<std::string> findings;
  const uint64_t length = file.length();
  std::vector<std::byte> sector(kFooterBytes);
  if (length < kFooterBytes + kAzureUnit) {
    findings.push_back(fmt::format("the file has {} bytes, too few for a disk", length));
    co_return findings;
  }
  co_await file.read(length - kFooterBytes, sector);
  if (!Footer::has_cookie(sector)) {
    findings.push_back("the last 512 bytes of the file are not a footer");
    co_return findings;
  }
  Footer footer;
  try {
    footer = Footer::decode(sector);
  } catch (const Error& error) {
    findings.push_back(error.message());
    co_return findings;
  }
  const auto expect = [&](bool good, const std::string& what) {
    if (!good) findings.push_back(what);
  };
  const uint64_t size = footer.current_size;
  expect(footer.kind == Kind::kFixed, "the disk is not fixed");
  expect(footer.header_offset == kNoOffset, "the footer points to a header");
  expect(
      size == length - kFooterBytes,
      fmt::format("the footer says {} bytes, but {} are before it", size, length - kFooterBytes));
  expect(is_aligned(size, kAzureUnit),
         fmt::format("the disk of {} bytes is not a whole number of MiB", size));
  expect(footer.original_size == size, "original and current size differ");
  expect(size <= kMaxSectors * kSector && footer.disk_bytes(SizeRule::kByCreator) == size,
         "programs that go by the geometry see another size");
  expect(footer.geometry == kLargest || footer.geometry == geometry_of(size / kSector),
         "the geometry is not that of a disk of this size");
  expect(load_be<uint32_t>(sector, 12) == 0x00010000, "the footer is of another version than 1.0");
  expect((load_be<uint32_t>(sector, 8) & 2) != 0, "a feature bit that is always set is not");
  expect(sector[84] == std::byte{0}, "the disk belongs to a machine that was suspended");
  expect(!footer.id.is_null(), "the disk has no identifier");
  co_return findings;
}

}  // namespace cairn::vpc
