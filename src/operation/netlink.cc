#include "operation/netlink.h"

#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace cairn::operation {
namespace {

// An attribute is a header, its data, and filling up to four bytes. The byte order is the host's.
void add_attribute(std::string& out, uint16_t type, const void* data, size_t bytes) {
  nlattr header{};
  header.nla_len = static_cast<uint16_t>(NLA_HDRLEN + bytes);
  header.nla_type = type;
  out.append(reinterpret_cast<const char*>(&header), sizeof header);
  out.append(static_cast<const char*>(data), bytes);
  out.resize(NLA_ALIGN(out.size()));
}
template <class T>
void add_number(std::string& out, uint16_t type, T value) {
  add_attribute(out, type, &value, sizeof value);
}

std::string command(uint8_t which) {
  genlmsghdr header{};
  header.cmd = which;
  header.version = 1;
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

// The number in attribute TYPE of a generic answer; 0 when it is not there.
uint16_t find_number(const std::string& answer, uint16_t type) {
  size_t at = sizeof(genlmsghdr);
  while (at + sizeof(nlattr) <= answer.size()) {
    nlattr header{};
    std::memcpy(&header, answer.data() + at, sizeof header);
    if (header.nla_len < NLA_HDRLEN || at + header.nla_len > answer.size()) break;
    if (header.nla_type == type && header.nla_len >= NLA_HDRLEN + sizeof(uint16_t)) {
      uint16_t value = 0;
      std::memcpy(&value, answer.data() + at + NLA_HDRLEN, sizeof value);
      return value;
    }
    at += NLA_ALIGN(header.nla_len);
  }
  return 0;
}

}  // namespace

KernelNbd::KernelNbd() {
  fd_ = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd_ < 0) throw Error::system(errno, "Cannot talk to the kernel (netlink)");
  std::string ask = command(CTRL_CMD_GETFAMILY);
  add_attribute(ask, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME, sizeof NBD_GENL_FAMILY_NAME);
  std::string answer;
  try {
    exchange(GENL_ID_CTRL, std::move(ask), &answer);
    family_ = find_number(answer, CTRL_ATTR_FAMILY_ID);
  } catch (const Error& error) {
    if (error.error_number() != ENOENT) {
      ::close(fd_);
      throw;
    }
  }
  if (family_ == 0) {
    ::close(fd_);
    throw Error(ErrorKind::kUnsupported, "this kernel has no NBD client (netlink family 'nbd')")
        .hint("Load it with: modprobe nbd");
  }
}

KernelNbd::~KernelNbd() { ::close(fd_); }

void KernelNbd::exchange(uint16_t type, std::string message, std::string* answer) {
  nlmsghdr header{};
  header.nlmsg_len = static_cast<uint32_t>(NLMSG_HDRLEN + message.size());
  header.nlmsg_type = type;
  header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  header.nlmsg_seq = ++sequence_;
  message.insert(0, reinterpret_cast<const char*>(&header), sizeof header);
  if (::send(fd_, message.data(), message.size(), 0) < 0) throw Error::system(errno, "netlink");
  // An answer, if any, comes before the acknowledgement.
  while (true) {
    char buffer[8192];
    const ssize_t got = ::recv(fd_, buffer, sizeof buffer, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      throw Error::system(errno, "netlink");
    }
    size_t left = static_cast<size_t>(got);
    const char* at = buffer;
    while (left >= sizeof(nlmsghdr)) {
      nlmsghdr part{};
      std::memcpy(&part, at, sizeof part);
      if (part.nlmsg_len < sizeof part || part.nlmsg_len > left) break;
      if (part.nlmsg_type == NLMSG_ERROR) {
        int32_t error = 0;
        std::memcpy(&error, at + NLMSG_HDRLEN, sizeof error);
        if (error != 0) throw Error::system(-error);
        return;
      }
      if (answer != nullptr) answer->assign(at + NLMSG_HDRLEN, part.nlmsg_len - NLMSG_HDRLEN);
      const size_t step = std::min<size_t>(NLMSG_ALIGN(part.nlmsg_len), left);
      at += step;
      left -= step;
    }
  }
}

void KernelNbd::connect(const Connection& connection) {
  std::string ask = command(NBD_CMD_CONNECT);
  add_number(ask, NBD_ATTR_INDEX, connection.index);
  add_number(ask, NBD_ATTR_SIZE_BYTES, connection.size);
  add_number(ask, NBD_ATTR_BLOCK_SIZE_BYTES, connection.block_bytes);
  add_number(ask, NBD_ATTR_SERVER_FLAGS, uint64_t{connection.flags});
  std::string descriptor;
  add_number(descriptor, NBD_SOCK_FD, static_cast<uint32_t>(connection.socket));
  std::string item;
  add_attribute(item, NBD_SOCK_ITEM | NLA_F_NESTED, descriptor.data(), descriptor.size());
  add_attribute(ask, NBD_ATTR_SOCKETS | NLA_F_NESTED, item.data(), item.size());
  exchange(family_, std::move(ask), nullptr);
}

void KernelNbd::disconnect(uint32_t index) {
  std::string ask = command(NBD_CMD_DISCONNECT);
  add_number(ask, NBD_ATTR_INDEX, index);
  exchange(family_, std::move(ask), nullptr);
}

}  // namespace cairn::operation
