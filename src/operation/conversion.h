#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "job/convert.h"
#include "operation/caller.h"
#include "operation/nodes.h"
#include "operation/pipes.h"
#include "operation/presets.h"

namespace cairn::operation {

// What is copied, and to what. Nothing of it contradicts the rest.
struct ConversionOptions {
  std::vector<OpenRequest> sources;
  std::string target;
  std::string format;                    // of the target; empty: detected
  bool create = true;                    // the target is made
  bool overwrite = false;                // it replaces one that exists
  std::optional<OpenRequest> opened_as;  // how an existing target is opened; none: by its name
  CacheMode target_cache;
  Options create_options;
  bool quiet = false;  // no notes, and no warnings of the copy
  ConvertOptions job;
  bool count_data = false;  // progress counts what is allocated, not the disk
  bool given_zero = false;  // an existing target reads as zeroes
  bool bitmaps = false;     // persistent bitmaps are copied, too
  bool skip_broken_bitmaps = false;
  bool all_snapshots = false;           // internal snapshots are copied, too
  std::optional<std::string> snapshot;  // which one of the source is read
  std::string hash;                     // the algorithm of a digest of the disk; empty: none
  bool verify = false;                  // the target is read back and compared
  bool streamed = false;                // a raw disk from standard input is copied as it comes
  std::optional<uint64_t> level;        // of compression
  const Preset* preset = nullptr;       // for whom the target is made, and
  const PresetImage* image = nullptr;   // which of its images
  // A run that ends early leaves the target, and the same run continues with it: the file that
  // keeps its progress, empty for one in the directory of the target.
  std::optional<std::string> resume = {};
  PipeTarget::Take take_output = {};  // set: the target is standard output, which it gives
};

struct ConversionResult {
  std::string format;       // of the target
  uint64_t bytes = 0;       // of its disk
  std::string digest = {};  // in hexadecimal, where one was asked for
  // With salvage: what became zeroes, on the disk of the target; LostRanges says how many at most.
  std::vector<LostRanges::Range> lost = {};
  uint64_t lost_bytes = 0;  // altogether
  uint64_t resumed_at = 0;  // bytes that an earlier run had copied
};

// Verifying found that the target is not what was written. It stays.
struct TargetDiffers {
  uint64_t offset = 0;
};

// Copies disks, one after the other, into a target. Throws TargetDiffers, or what went wrong; what
// was made is gone then, or the error says what is left. Not from a task.
ConversionResult convert(Caller& caller, ConversionOptions options);

}  // namespace cairn::operation
