#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "async/task.h"

namespace cairn {

// Points inside of drivers at which faults may be injected and requests be stopped, by the names
// that configuration files give them.
enum class DebugEvent {
  kL1Update,
  kL1GrowAllocTable,
  kL1GrowWriteTable,
  kL1GrowActivateTable,
  kL2Load,
  kL2Update,
  kL2UpdateCompressed,
  kL2AllocCowRead,
  kL2AllocWrite,
  kReadAio,
  kReadBackingAio,
  kReadCompressed,
  kWriteAio,
  kWriteCompressed,
  kVmstateLoad,
  kVmstateSave,
  kCowRead,
  kCowWrite,
  kReftableLoad,
  kReftableGrow,
  kReftableUpdate,
  kRefblockLoad,
  kRefblockUpdate,
  kRefblockUpdatePart,
  kRefblockAlloc,
  kRefblockAllocHookup,
  kRefblockAllocWrite,
  kRefblockAllocWriteBlocks,
  kRefblockAllocWriteTable,
  kRefblockAllocSwitchTable,
  kClusterAlloc,
  kClusterAllocBytes,
  kClusterFree,
  kFlushToOs,
  kFlushToDisk,
  kPwritevRmwHead,
  kPwritevRmwAfterHead,
  kPwritevRmwTail,
  kPwritevRmwAfterTail,
  kPwritev,
  kPwritevZero,
  kPwritevDone,
  kEmptyImagePrepare,
  kL1ShrinkWriteTable,
  kL1ShrinkFreeL2Clusters,
  kCorWrite,
  kClusterAllocSpace,
  kNone,
};
std::string_view to_string(DebugEvent event);
// Nothing when no event has that name.
std::optional<DebugEvent> parse_debug_event(std::string_view name);

// What a fault filter offers to the drivers above it and to who sits at the keyboard. From any
// worker.
class DebugPort {
 public:
  virtual ~DebugPort() = default;
  // A driver has come to EVENT; returns at once unless a breakpoint stops it here.
  virtual Task<void> event(DebugEvent event) = 0;
  // The next request that comes to EVENT stops and is called TAG.
  virtual void set_breakpoint(DebugEvent event, std::string tag) = 0;
  // Forgets the breakpoints called TAG and lets go on what they stopped; false when there are none.
  virtual bool remove_breakpoint(std::string_view tag) = 0;
  // Lets the requests called TAG go on; false when there are none.
  virtual bool resume(std::string_view tag) = 0;
  virtual bool is_suspended(std::string_view tag) const = 0;
};

}  // namespace cairn
