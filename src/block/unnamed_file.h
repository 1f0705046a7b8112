#pragma once

#include <string>

namespace cairn {

// A file without a name, for what must not outlive the program: it goes when its last descriptor
// does.
class UnnamedFile {
 public:
  // In DIRECTORY. Throws what the system says, after WHAT ("Could not make …").
  UnnamedFile(const std::string& directory, const std::string& what);
  UnnamedFile(const UnnamedFile&) = delete;
  UnnamedFile& operator=(const UnnamedFile&) = delete;
  ~UnnamedFile();
  // A path by which this process can open it, as long as this object is there.
  std::string path() const;

 private:
  int fd_ = -1;
};

}  // namespace cairn
