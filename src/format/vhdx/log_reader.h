#pragma once

#include <functional>
#include <unordered_map>
#include <vector>

#include "async/task.h"
#include "block/node.h"
#include "format/vhdx/layout.h"

namespace cairn::vhdx {

// Finds what is to be replayed in a log. Memory and work are bounded by the length of the log.
class LogReader {
 public:
  LogReader(Node& file, const Header& header);

  // The entries of the active sequence from its tail to its head; empty when there is none.
  Task<std::vector<LogEntry>> active();
  // Calls VISIT for every descriptor of ENTRY, in order, with the place in the file of its data
  // sector.
  Task<void> each_target(const LogEntry& entry,
                         std::function<Task<void>(const LogDescriptor&, uint64_t)> visit);
  // Throws kInvalid when the entries cannot be replayed into this file: it is shorter than it was,
  // or a target is where none may be.
  Task<void> check_targets(const std::vector<LogEntry>& entries);
  // The 4096 bytes that DESCRIPTOR, with its data sector at PLACE, gives.
  Task<void> read_data(const LogDescriptor& descriptor, uint64_t place, MutableByteSpan out);

 private:
  // The valid entry at POSITION.
  Task<std::optional<LogEntry>> entry_at(uint64_t position);
  Task<bool> valid(const LogEntry& entry);
  Task<void> read(uint64_t position, MutableByteSpan out);
  uint64_t place_of(uint64_t position) const { return offset_ + position % length_; }

  Node& file_;
  uint64_t offset_;
  uint64_t length_;
  Uuid guid_;
  uint64_t budget_;  // bytes that may still be summed
  std::unordered_map<uint64_t, std::optional<LogEntry>> known_;
};

}  // namespace cairn::vhdx
