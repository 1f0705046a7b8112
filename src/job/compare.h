#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <string_view>

#include "async/cancel.h"
#include "async/sync.h"
#include "block/context.h"
#include "block/node.h"
#include "job/data_budget.h"

namespace cairn {

struct CompareOptions {
  bool strict = false;  // sizes and the kind of every extent must agree too
  unsigned parallel = 8;
  // The first disk is compared with what the second one has from here on…
  uint64_t second_begin = 0;
  // …and, when given, no further than for so many bytes.
  std::optional<uint64_t> length = std::nullopt;
};

struct CompareResult {
  enum class Kind { kIdentical, kContent, kSize, kStatus };
  Kind kind = Kind::kIdentical;
  uint64_t offset = 0;         // of the first difference: a whole sector for contents
  bool sizes_differ = false;   // identical but for zeroes past the end of the shorter one
  uint64_t common_length = 0;  // of the shorter one
};

// What went wrong where: `compare` has exit codes for it.
struct CompareFailure {
  enum class Step { kStatus, kRead };
  Step step = Step::kRead;
  unsigned image = 0;  // 0 or 1
  uint64_t offset = 0;
  Error error;
};

// Compares two disks. Ranges of which both are known to be zero are not read.
class Compare {
 public:
  Compare(Context& context, NodePtr first, NodePtr second, CompareOptions options,
          const CancelSource& cancel);
  std::function<void(uint64_t done, uint64_t total)> progress;
  // Of what is read of each disk.
  DataBudget budgets[2];

  // Throws CompareFailure, or Error when cancelled.
  Task<CompareResult> run();

 private:
  struct Chunk {
    uint64_t offset = 0;
    uint64_t length = 0;  // 0: nothing is left
    bool zero[2] = {};
  };
  Task<void> work();
  std::array<bool, 6> status(unsigned image) const;
  Task<Chunk> next_chunk();
  Task<void> look(unsigned image);
  Task<void> read(unsigned image, uint64_t offset, MutableByteSpan out);
  Task<void> compare_piece(const Chunk& chunk, MutableByteSpan first, MutableByteSpan second);
  void differs(CompareResult::Kind kind, uint64_t offset);

  Context& context_;
  NodePtr nodes_[2];
  CompareOptions options_;
  const CancelSource& cancel_;
  uint64_t begin_[2] = {};  // where each disk begins
  uint64_t total_ = 0;
  uint64_t piece_bytes_ = 0;

  Mutex scan_;
  uint64_t position_ = 0;
  struct Known {
    Extent extent;
    uint64_t end = 0;
  } known_[2];

  // The lowest difference so far; chunks after it need not be compared.
  std::atomic<uint64_t> limit_{UINT64_MAX};
  std::mutex result_state_;
  CompareResult result_;
  std::atomic<uint64_t> done_{0};
};

}  // namespace cairn
