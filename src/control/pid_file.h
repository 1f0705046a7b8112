#pragma once

#include <string>

namespace cairn::control {

// A file with the number of this process, which goes with it.
class PidFile {
 public:
  // Throws "cannot create PID file: …".
  explicit PidFile(const std::string& path);
  ~PidFile();
  PidFile(const PidFile&) = delete;
  // The file stays where it is, for another process.
  void leave();

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace cairn::control
