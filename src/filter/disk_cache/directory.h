#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/own_fd.h"
#include "filter/disk_cache/layout.h"

namespace cairn::disk_cache {

// A directory with files of the cache, which processes share. All functions block, and may be
// called from any thread.
class Directory {
 public:
  // Makes PATH, for its owner alone, when it is missing. SIZE: how many bytes the files take
  // together, nothing: 10 GiB, or half of what is free when that is less. Throws kDenied when
  // somebody else may write to it, and what the system says.
  Directory(std::string path, std::optional<uint64_t> size);

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  // The file of HEADER's image, which is made when it is missing or damaged; files of the same
  // image in other states go. Throws what the system says.
  OwnFd open_file(const Header& header);
  // BYTES were added to a file; whether it is time to trim(). Does not block.
  bool due(uint64_t bytes);
  // Gives back what was used least lately until the files keep to the size.
  void trim();

 private:
  void trim_once();
  // How much may be added between two looks.
  uint64_t step() const;
  OwnFd make_file(const std::string& name, const Header& header);
  OwnFd existing(const std::string& name, const Header& header);
  void remove_other_states(const std::string& name);

  const std::string path_;
  OwnFd fd_;
  uint64_t size_ = 0;
  std::atomic<uint64_t> added_{0};  // since the last look
  std::mutex trimming_;
  std::atomic<bool> wanted_{false};  // trim() was called since the last look
};

// Milliseconds since 1970.
uint64_t now_ms();

}  // namespace cairn::disk_cache
