#pragma once

#include <cstdint>
#include <string>

namespace cairn::operation {

// The kernel's NBD client over generic netlink. Calls block; they take no noticeable time.
class KernelNbd {
 public:
  // Throws kUnsupported when the kernel has no NBD client, kDenied without the right.
  KernelNbd();
  KernelNbd(const KernelNbd&) = delete;
  ~KernelNbd();

  struct Connection {
    uint32_t index = 0;  // N of /dev/nbdN
    int socket = -1;     // where transmission is to go on; the kernel keeps its own reference
    uint64_t size = 0, block_bytes = 512;
    uint16_t flags = 0;  // transmission flags
  };
  void connect(const Connection& connection);
  void disconnect(uint32_t index);

 private:
  void exchange(uint16_t type, std::string message, std::string* answer);
  int fd_ = -1;
  uint16_t family_ = 0;
  uint32_t sequence_ = 0;
};

}  // namespace cairn::operation
