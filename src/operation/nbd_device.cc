#include "operation/nbd_device.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "base/error.h"
#include "operation/nbd_client.h"
#include "operation/netlink.h"

namespace cairn::operation {
namespace {

// Words of the reference for a device that the NBD driver does not serve.
constexpr const char* kNoNbdDevice = "Failed to set NBD socket";

// N of /dev/nbdN (or of a link to it). Throws.
uint32_t device_index(const std::string& device) {
  char* resolved = ::realpath(device.c_str(), nullptr);
  const std::string path = resolved != nullptr ? resolved : device;
  ::free(resolved);
  const std::string name = path.substr(path.rfind('/') + 1);
  uint32_t index = 0;
  const char* begin = name.data() + 3;
  const char* end = name.data() + name.size();
  if (name.starts_with("nbd") && name.size() > 3) {
    const auto [stop, error] = std::from_chars(begin, end, index);
    if (error == std::errc() && stop == end) return index;
  }
  throw Error(ErrorKind::kInvalid, device + " is no NBD device");
}

// Whether DEVICE is a block device; throws when it cannot be opened.
bool is_block_device(const std::string& device, const std::string& complaint) {
  const int fd = ::open(device.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw Error::system(errno, complaint + " " + device);
  struct stat status {};
  const bool block = ::fstat(fd, &status) == 0 && S_ISBLK(status.st_mode);
  ::close(fd);
  return block;
}

Task<void> attach(Socket socket, std::string name, uint32_t index) {
  Stream stream(std::move(socket));
  const PlainExport plain = co_await negotiate_plain(stream, std::move(name));
  KernelNbd kernel;
  kernel.connect({.index = index,
                  .socket = stream.socket().fd(),
                  .size = plain.size,
                  .block_bytes = 512,
                  .flags = plain.flags});
}

}  // namespace

Task<void> serve_device(Caller& caller, ServePlan plan, std::string device,
                        std::function<void()> connected) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw Error::system(errno, "socketpair");
  plan.connected = ends[0];
  plan.server.persistent = false;
  TaskGroup attaching;
  const std::string name = plan.images.front().name;
  const auto announce = plan.ready;
  std::exception_ptr error;
  plan.ready = [&](const nbd::server::Server& server, const SocketAddress& address) {
    Socket socket(ends[1]);
    if (!is_block_device(device, "Failed to open"))
      throw Error(ErrorKind::kInvalid, caller.guarded
                                           ? "Failed to open " + device + ": not a block device"
                                           : kNoNbdDevice);
    const uint32_t index = device_index(device);
    attaching.spawn([](const Caller& who, Socket end, std::string what, uint32_t where,
                       std::exception_ptr& failure) -> Task<void> {
      try {
        co_await attach(std::move(end), std::move(what), where);
      } catch (...) {
        failure = std::current_exception();
        who.cancel.request();
      }
    }(caller, std::move(socket), name, index, error));
    connected();
    announce(server, address);
  };
  try {
    co_await serve(caller, std::move(plan));
  } catch (...) {
    if (!error) error = std::current_exception();
  }
  co_await attaching.join();
  if (error) std::rethrow_exception(error);
}

void disconnect_device(const Caller& caller, const std::string& device) {
  if (is_block_device(device, "Cannot open")) {
    KernelNbd kernel;
    kernel.disconnect(device_index(device));
  } else if (caller.guarded) {
    throw Error(ErrorKind::kInvalid, "Cannot open " + device + ": not a block device");
  }
}

}  // namespace cairn::operation
