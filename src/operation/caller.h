#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "async/cancel.h"
#include "block/context.h"

namespace cairn {
class FileReplacement;
}

namespace cairn::operation {

class StandardInput;

// Who asks for an operation, and what it hears of the work. Outlives the operation. The functions
// are called from any worker; those that are not set do nothing.
struct Caller {
  Context& context;
  CancelSource& cancel;  // its request ends the work with kCancelled

  // How much is done of how much; TOTAL is 0 while it is not known.
  std::function<void(uint64_t done, uint64_t total)> progress = [](uint64_t, uint64_t) {};
  // A part of the work with this name begins: progress counts from nothing again.
  std::function<void(std::string_view name)> phase = [](std::string_view) {};
  Context::Listener warn = [](std::string_view) {};  // what may be wrong
  Context::Listener note = [](std::string_view) {};  // what takes longer, or is made on the way

  // What would lose content or never end is refused; otherwise there is a warning, as QEMU's tools
  // would go on.
  bool guarded = true;
  // What the work is called where Context::progress hears of it.
  std::string name = {};
  bool pipes = false;  // the name "-" is standard input
  // Untrusted images: references in them are not followed, and what they make us read and write
  // is bounded, by OUTPUT_BUDGET bytes when that is given.
  bool untrusted = false;
  std::optional<uint64_t> output_budget = {};

  // What receives a target that replaces a file, where another process completes it.
  std::shared_ptr<FileReplacement> replacement = {};
  // What reads it, once an image was asked for there.
  std::shared_ptr<StandardInput> standard_input = {};

  // Runs a task to its end on the calling thread.
  template <class T>
  T run(Task<T> task) const {
    return context.runtime().run(std::move(task));
  }
};

// While it exists, the end of a server is not that of its disks: a cancellation stops what serves,
// and requests are finished and tables written within the time limits of their protocols.
class DisksOutliveServer {
 public:
  explicit DisksOutliveServer(Context& context) : context_(context), cancel_(context.cancel) {
    context.cancel = nullptr;
  }
  ~DisksOutliveServer() { context_.cancel = cancel_; }
  DisksOutliveServer(const DisksOutliveServer&) = delete;
  DisksOutliveServer& operator=(const DisksOutliveServer&) = delete;

 private:
  Context& context_;
  const CancelSource* cancel_;
};

}  // namespace cairn::operation
