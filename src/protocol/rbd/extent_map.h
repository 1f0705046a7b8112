#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

namespace cairn::rbd {

// Which parts of an image have data, as the cluster said once, kept true under our own changes. All
// functions from any thread. Ranges that come from the cluster may be anything.
class ExtentMap {
 public:
  // A change of the image under way. While there is a write, its range has data.
  class Change {
   public:
    enum class Kind : uint8_t { kWrite, kZero };
    Change(ExtentMap& map, Kind kind, uint64_t offset, uint64_t length);
    // Without a call of done() the range may have data.
    ~Change();
    Change(const Change&) = delete;
    // The zeroing was done.
    void done();

   private:
    friend class ExtentMap;
    ExtentMap& map_;
    const Kind kind_;
    const uint64_t begin_, end_;
    bool spoilt_ = false;  // written meanwhile
  };

  struct Run {
    uint64_t length = 0;
    bool data = true;
  };

  // What the cluster says is added from now on; add() may come from any thread. After seal() the
  // map can be asked.
  void begin();
  void add(uint64_t offset, uint64_t length);
  void seal();
  // Nothing is known any more.
  void forget();
  bool known() const;

  // What the bytes from OFFSET on are, MAX at most; MAX is not 0. Data while nothing is known.
  Run at(uint64_t offset, uint64_t max) const;

 private:
  enum class State : uint8_t { kUnknown, kFilling, kKnown };
  void insert(uint64_t begin, uint64_t end);
  void erase(uint64_t begin, uint64_t end);

  mutable std::mutex mutex_;
  State state_ = State::kUnknown;
  std::map<uint64_t, uint64_t> data_;  // begin and end of what has data
  std::vector<Change*> changes_;       // under way
};

}  // namespace cairn::rbd
