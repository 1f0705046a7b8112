#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"
#include "block/debug.h"

namespace cairn::blkdebug {

// Kinds of requests, one bit each.
enum IoType : unsigned {
  kRead = 1,
  kWrite = 2,
  kWriteZeroes = 4,
  kDiscard = 8,
  kFlush = 16,
  kBlockStatus = 32,
};

// An error that requests get after EVENT.
struct InjectError {
  DebugEvent event = DebugEvent::kNone;
  uint64_t state = 0;  // only in this state; 0: in any
  unsigned types = kRead | kWrite | kWriteZeroes | kDiscard | kFlush;
  int error = 5;                   // 0: no error, but the rule counts
  std::optional<uint64_t> sector;  // only requests that touch this sector of 512 bytes
  bool once = false;
};

struct SetState {
  DebugEvent event = DebugEvent::kNone;
  uint64_t state = 0;
  uint64_t new_state = 0;
};

struct Rules {
  std::vector<InjectError> inject;
  std::vector<SetState> states;
};

// Adds the rules of a configuration file's TEXT. Throws kInvalid.
void parse_config(std::string_view text, Rules* rules);
// Takes inject-error.N.* and set-state.N.* out of OPTIONS, or a single rule without N. Throws
// kInvalid.
void parse_options(Options& options, Rules* rules);

// Which errors are armed. From any thread.
class Machine {
 public:
  explicit Machine(Rules rules);
  // Arms what belongs to EVENT.
  void happened(DebugEvent event);
  // Throws the error that a request of TYPE gets; flushes have no range.
  void request(IoType type, uint64_t offset, uint64_t length);
  // How many of the LENGTH bytes from OFFSET on come before the next sector that has an error for
  // TYPE.
  uint64_t before_error(IoType type, uint64_t offset, uint64_t length);

 private:
  std::mutex mutex_;
  Rules rules_;
  std::vector<size_t> armed_;  // indices into rules_.inject, latest first
  std::vector<bool> spent_;    // "once" rules that have fired
  uint64_t state_ = 1;
};

}  // namespace cairn::blkdebug
