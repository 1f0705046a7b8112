#include <fmt/core.h>

#include <algorithm>

#include "block/context.h"
#include "block/driver.h"
#include "block/work_report.h"
#include "format/vdi/node.h"

namespace cairn {

using namespace vdi;

namespace {
// More lines than these are counted and not printed.
constexpr uint64_t kMaxLines = 100;
constexpr uint64_t kReportedBlocks = 1024;
}  // namespace

// Counts and lines are those of QEMU; a repair corrects the counter, gives blocks that two places
// of the disk share a copy each, and turns entries that point nowhere into zeroes.
Task<CheckResult> VdiNode::check(CheckRequest request) {
  CheckResult result;
  uint64_t lines = 0;
  const auto finding = [&](const std::string& text) {
    ++result.corruptions;
    if (request.report && lines < kMaxLines) request.report("ERROR: " + text);
    if (request.report && lines == kMaxLines) request.report("More errors are counted, not listed");
    ++lines;
  };
  std::vector<bool> used(header_.blocks, false);
  std::vector<uint64_t> outside;
  std::vector<std::pair<uint64_t, uint32_t>> shared;
  const bool all = request.repair == CheckRequest::Repair::kAll;
  uint64_t count = 0;
  uint64_t missing = 0;  // nothing brings these back
  if (table_) co_await flush_mapped();
  co_await each_used([&](uint64_t block, uint32_t physical) {
    report_work(context(), "check", block, header_.blocks, kReportedBlocks);
    if (physical >= header_.blocks) {
      finding(fmt::format("block index {} too large, is {}", block, physical));
      if (all) outside.push_back(block);
      return;
    }
    ++count;
    if (used[physical]) {
      const std::string number = std::to_string(physical);
      finding("block index " + number + " also used by " + number);
      if (all) shared.emplace_back(block, physical);
    }
    used[physical] = true;
    const uint64_t bytes = std::min(kBlockBytes, header_.size - block * kBlockBytes);
    if (context().profile.past_end == PastEnd::kRefuse &&
        host_of(physical) + bytes > file_->length()) {
      finding(
          fmt::format("block index {} is past the end of the file ({} bytes); the file was cut off",
                      block, file_->length()));
      ++missing;
    }
  });
  report_work(context(), "check", header_.blocks, header_.blocks);
  const bool wrong_counter = count != header_.allocated;
  if (wrong_counter)
    finding(
        fmt::format("allocated blocks mismatch, is {}, should be {}", count, header_.allocated));
  if (!all || result.corruptions == 0) co_return result;

  counter_trusted_ = true;
  for (const uint64_t block : outside) co_await table_->set_entry(block, kZero);
  for (const auto& [block, physical] : shared) {
    uint32_t taken = 0;
    const uint32_t place = blocks_.take(1, &taken);
    if (taken == 0)
      throw Error(ErrorKind::kNoSpace, "VDI: no block is left for a copy of a shared one");
    co_await copy_block(physical, place);
    table_->write_after_file_flush();
    co_await table_->set_entry(block, place);
  }
  co_await flush_mapped();
  co_await close_holes();
  result.corruptions_fixed = result.corruptions - missing;
  result.corruptions = missing;
  co_return result;
}

}  // namespace cairn
