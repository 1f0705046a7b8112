// A front end of the vhost-user-blk export: its messages with a file of memory, then the ring that
// a guest wrote there. The first byte chooses: messages over a socket pair, or a ring alone.
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "block/block.h"
#include "drivers.h"
#include "export/vhost_user/split_ring.h"
#include "export/vhost_user/vhost_export.h"

namespace {

using namespace cairn;
using namespace cairn::vhost_user;

constexpr size_t kMemory = 1 << 16;
constexpr uint64_t kGuest = 0x10000, kUser = 0x20000;

int new_file(size_t bytes) {
  const int file = ::memfd_create("fuzz", MFD_CLOEXEC);
  if (file < 0 || ::ftruncate(file, static_cast<off_t>(bytes)) != 0) __builtin_trap();
  return file;
}

// Every chain of a ring whose memory is BYTES stays within that memory.
void walk(ByteSpan bytes) {
  if (bytes.size() < 2) return;
  static const int file = new_file(kMemory);
  GuestMemory memory;
  memory.add({.guest_address = kGuest, .size = kMemory, .user_address = kUser, .file_offset = 0},
             file);
  const MutableByteSpan all = memory.from_guest(kGuest, kMemory);
  std::fill(all.begin(), all.end(), std::byte{0});
  std::memcpy(all.data(), bytes.data() + 1, std::min(bytes.size() - 1, kMemory));
  RingSetup setup{.size = 1u << (static_cast<unsigned>(bytes[0]) & 7),
                  .addresses = {},
                  .features = feature::kIndirect | feature::kEventIndex};
  setup.addresses.descriptors = kUser;
  setup.addresses.available = kUser + 0x800;
  setup.addresses.used = kUser + 0xc00;
  SplitRing ring(memory, nullptr, setup);
  try {
    Chain chain;
    for (unsigned left = ring.available(); left != 0; --left) {
      ring.read_chain(ring.next_head(), &chain);
      if (chain.readable.size() + chain.writable.size() > SplitRing::kMostSegments)
        __builtin_trap();
      for (const auto* parts : {&chain.readable, &chain.writable})
        for (const Segment& part : *parts)
          if (part.data < all.data() || part.length == 0 ||
              part.length > static_cast<uint64_t>(all.data() + kMemory - part.data))
            __builtin_trap();
      ring.push_used(chain.head, 1);
      ring.must_notify();
    }
    ring.ask_for_kicks(true);
  } catch (const Error&) {
  }
}

// The first of the messages has a file with it.
void send_all(int socket, ByteSpan bytes) {
  static const int file = new_file(1 << 20);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof file)] = {};
  iovec vector{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  cmsghdr* part = CMSG_FIRSTHDR(&header);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof file);
  std::memcpy(CMSG_DATA(part), &file, sizeof file);
  [[maybe_unused]] const ssize_t sent = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(socket, SHUT_WR);
}

Task<void> talk(Context& context, NodePtr node, bool writable, ByteSpan bytes) {
  DiskOptions options;
  options.node = node;
  options.writable = writable;
  options.queues = 4;
  Export exported(context, std::move(options), {});
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) __builtin_trap();
  Socket ours(ends[0]);
  const Socket theirs(ends[1]);
  send_all(theirs.fd(), bytes);
  co_await exported.serve(std::move(ours));
}

Task<NodePtr> open_disk(Context& context, int fd) {
  OpenRequest request;
  request.filename = "/proc/self/fd/" + std::to_string(fd);
  request.format = "raw";
  request.flags.writable = true;
  NodePtr node = co_await open_node(context, std::move(request));
  co_return node;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Context* context = [] {
    auto* made = new Context({.workers = 1, .engine = EngineKind::kThreads});
    register_drivers(made->registry());
    made->warn = [](std::string_view) {};
    return made;
  }();
  if (size == 0) return 0;
  const ByteSpan bytes(reinterpret_cast<const std::byte*>(data + 1), size - 1);
  if ((data[0] & 1) != 0) {
    walk(bytes);
    return 0;
  }
  static const int fd = new_file(1 << 20);
  NodePtr node = context->runtime().run(open_disk(*context, fd));
  context->runtime().run(talk(*context, node, (data[0] & 2) != 0, bytes));
  context->runtime().run(node->close());
  return 0;
}
