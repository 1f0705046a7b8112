// What the tests of operations share: a caller that keeps what it hears, and images with content.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "operation/operation.h"
#include "support.h"

namespace cairn::testing_support {

// The size of the disks that operations are tried with.
inline constexpr uint64_t kImageBytes = 4 << 20;

class Asking {
 public:
  explicit Asking(World& world) : caller{.context = world.context, .cancel = cancel} {
    caller.warn = [this](std::string_view line) { keep(warnings, line); };
    caller.note = [this](std::string_view line) { keep(notes, line); };
    caller.phase = [this](std::string_view name) { keep(phases, name); };
    caller.progress = [this](uint64_t done, uint64_t total) {
      const std::lock_guard lock(mutex_);
      last_done = done;
      last_total = total;
    };
  }

  CancelSource cancel;
  operation::Caller caller;
  std::vector<std::string> warnings, notes, phases;
  uint64_t last_done = 0;
  uint64_t last_total = 0;

 private:
  void keep(std::vector<std::string>& list, std::string_view line) {
    const std::lock_guard lock(mutex_);
    list.emplace_back(line);
  }
  std::mutex mutex_;
};

inline OpenRequest image(const std::string& name, const std::string& format = {}) {
  OpenRequest request;
  request.filename = name;
  request.format = format;
  return request;
}

// Writes LENGTH bytes of VALUE at OFFSET of the image NAME.
inline void fill(World& world, const std::string& name, const std::string& format, uint64_t offset,
                 size_t length, unsigned char value) {
  NodePtr node = world.open(name, format, true);
  const std::vector<std::byte> bytes(length, std::byte{value});
  world.run(node->write(offset, bytes));
  world.close(node);
}

// LENGTH bytes at OFFSET of the image NAME.
inline std::vector<std::byte> content(World& world, const std::string& name,
                                      const std::string& format, uint64_t offset, size_t length) {
  NodePtr node = world.open(name, format, false);
  std::vector<std::byte> bytes(length);
  world.run(node->read(offset, bytes));
  world.close(node);
  return bytes;
}

inline bool exists(const std::string& name) { return std::filesystem::exists(name); }

}  // namespace cairn::testing_support
