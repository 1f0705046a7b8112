#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/driver.h"
#include "block/work_report.h"
#include "format/vpc/node.h"

namespace cairn {

using namespace vpc;

namespace {
constexpr uint64_t kReportedBlocks = 1024;
}  // namespace

// What opening lets pass: the copies of the footer must agree and checksums be right. A repair
// writes both again. QEMU cannot check this format.
Task<CheckResult> VpcNode::check(CheckRequest request) {
  CheckResult result;
  const auto finding = [&](const std::string& text) {
    ++result.corruptions;
    if (request.report) request.report("ERROR " + text);
  };
  const bool repair = request.repair == CheckRequest::Repair::kAll;
  std::vector<std::byte> sector(kFooterBytes);
  std::vector<std::byte> expected(kFooterBytes);
  footer_.encode(expected);
  const uint64_t end = align_up(file_->length(), kSector) - kFooterBytes;
  if (fixed()) co_return result;
  co_await file_->read(end, sector);
  if (sector != expected) {
    finding(fmt::format("the footer at {} is not the one at the start of the file", end));
    if (repair) {
      Mutex::Guard guard = co_await end_mutex_.lock();
      co_await write_footer(end_);
      if (file_->length() > end_ + kFooterBytes)
        co_await file_->resize({.length = end_ + kFooterBytes});
    }
  }
  if (!header_.checksum_good) {
    finding("the checksum of the dynamic header is wrong");
    if (repair) {
      std::vector<std::byte> bytes(kHeaderBytes);
      header_.encode(bytes);
      co_await file_->write(footer_.header_offset, bytes);
      header_.checksum_good = true;
    }
  }
  const uint64_t blocks = div_ceil(length(), header_.block_bytes);
  for (uint64_t block = 0; block < blocks; ++block) {
    report_work(context(), "check", block, blocks, kReportedBlocks);
    const uint32_t place = co_await entry(block);
    ++result.total_clusters;
    if (place != kUnused) ++result.allocated_clusters;
  }
  report_work(context(), "check", blocks, blocks);
  if (repair && result.corruptions != 0) {
    co_await file_->flush();
    result.corruptions_fixed = result.corruptions;
    result.corruptions = 0;
  }
  co_return result;
}

}  // namespace cairn
