#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "format/parallels/node.h"

namespace cairn {

using namespace parallels;

namespace {
// The table is written by sectors; the first one holds the header too.
constexpr uint32_t kTableBlockBytes = 512;
constexpr size_t kTableBlocks = 8192;
constexpr uint64_t kDefaultPrealloc = 128 << 20;
}  // namespace

Task<void> ParallelsNode::load(OpenContext& request) {
  set_read_only(!request.flags.writable);
  const uint64_t prealloc = request.options.size("prealloc-size").value_or(kDefaultPrealloc);
  const std::string mode = request.options.string("prealloc-mode").value_or("falloc");
  if (mode != "falloc" && mode != "truncate")
    throw Error(ErrorKind::kInvalid, "invalid parameter value: " + mode);
  prealloc_falloc_ = mode == "falloc";

  std::vector<std::byte> bytes(kHeaderBytes);
  co_await file_->read(
      0, MutableByteSpan(bytes).first(std::min<uint64_t>(bytes.size(), file_->length())));
  header_ = Header::decode(bytes, file_->length());
  prealloc_bytes_ = std::min(std::max(align_down(prealloc, kSector), cluster()), kMaxSize);
  set_length(header_.size());
  set_unit(cluster());
  NodePtr below = co_await request.open_backing("", "");
  if (below) add_child("backing", std::move(below), ChildRole::kBacking);
  if (request.flags.metadata_only) co_return;

  table_ = std::make_unique<TableCache>(this, *file_, "bat", kTableBlockBytes, kTableBlocks,
                                        header_.table_end());
  unclean_ = header_.in_use == kInUse;
  const auto begin = header_.data_begin(file_->length());
  data_off_wrong_ = !begin;
  data_begin_ = begin.value_or(header_.least_data());
  if (header_.in_use != 0 && header_.in_use != kInUse && header_.in_use != kClosed)
    context().warn("Parallels: the mark of use has the unknown value " +
                   std::to_string(header_.in_use));
  if ((header_.flags & kFlagEmpty) != 0) co_await warn_of_flags();
  if (header_.ext_off != 0) co_await load_extension();
  if (!read_only()) co_await prepare_writing(request.flags.for_check);
}

// Some programs take such a disk for zero and others, like QEMU, do not.
Task<void> ParallelsNode::warn_of_flags() {
  bool any = false;
  co_await each_entry([&](uint32_t, uint32_t entry) { any = any || entry != 0; });
  if (any)
    context().warn(
        "Parallels: the header says that the disk is empty, but it has data; the data "
        "is shown");
}

// Finds what is free. What is inconsistent is repaired first: otherwise one place could be given
// twice. `check` looks by itself.
Task<void> ParallelsNode::prepare_writing(bool for_check) {
  if (file_->reads_zero_when_created()) virgin_ = file_->length();
  const Survey found = co_await survey_clusters();
  find_holes(found);
  if (for_check || (found.sound() && !unclean_ && !data_off_wrong_)) co_return;
  // A repair would take what a file that was cut off lacks for zeroes.
  if (context().profile.past_end == PastEnd::kRefuse && !found.outside.empty())
    throw Error(ErrorKind::kCorrupt, fmt::format("Parallels: {} clusters of the disk are past the "
                                                 "end of the file ({} bytes); the file was cut off",
                                                 found.outside.size(), file_->length()))
        .hint(
            "Get the file again from where it came. `cairn check -r all` makes zeroes of what is "
            "missing.");
  CheckRequest request;
  request.repair = CheckRequest::Repair::kAll;
  request.report = [this](std::string_view line) { context().tell(line); };
  std::exception_ptr error;
  try {
    co_await examine(std::move(request));
  } catch (Error& caught) {
    error = std::make_exception_ptr(caught.context("Could not repair corrupted image"));
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace cairn
