#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace cairn {

// Joins what several workers do in small pieces to steps of the size in which progress is shown: a
// step counts when all of its pieces are done.
class ProgressSteps {
 public:
  struct Step {
    explicit Step(uint64_t its_end) : end(its_end) {}
    const uint64_t end;
    std::atomic<uint64_t> open{1};  // pieces that are not done, and one while it may get more
    std::atomic<uint64_t> bytes{0};
  };
  // Gets the bytes of each step, on the worker that has done its last piece.
  std::function<void(uint64_t bytes)> report;

  // The step of the piece at OFFSET, in an extent that ends at END. Pieces come in the order of the
  // disk, from one caller at a time.
  std::shared_ptr<Step> take(uint64_t offset, uint64_t end);
  // No more pieces follow. By the caller of take().
  void end();
  // A piece of STEP is done; BYTES of it count.
  void done(Step& step, uint64_t bytes) const;

 private:
  std::shared_ptr<Step> last_;
};

}  // namespace cairn
