// A front end of vhost-user-blk that reads 4 KiB at random places, as a virtual machine with one
// queue does: it sleeps until it is called, takes all answers, and offers as many new requests.
//
// vhost_user_reads SOCKET DISK_BYTES DEPTH SECONDS prints the requests a second and the
// mean microseconds of one. bench/daemon builds and runs it.
//
// Messages: "Vhost-user Protocol" of QEMU's documentation; rings and requests: virtio 1.2,
// sections 2.7 and 5.2.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr uint64_t kMemoryBytes = 8 << 20;
constexpr uint64_t kGuest = uint64_t{1} << 32;
constexpr uint64_t kUser = uint64_t{0x7f} << 40;
constexpr unsigned kEntries = 256;
constexpr uint64_t kAvailable = kEntries * 16;
constexpr uint64_t kUsed = 8192;
constexpr uint64_t kHeaders = 65536;  // 32 bytes a request: header, then the status
constexpr uint64_t kBuffers = 1 << 20;
constexpr uint64_t kReadBytes = 4096;
constexpr int kWaitMilliseconds = 10000;

constexpr uint64_t kFeatures = uint64_t{1} << 32 | 1 << 30 | 1 << 9;  // VERSION_1, protocol, flush
enum Message : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kSetVringEnable = 18,
};

void must(bool good, const char* what) {
  if (!good) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

class FrontEnd {
 public:
  explicit FrontEnd(const char* path) {
    memory_fd_ = memfd_create("guest", MFD_CLOEXEC);
    must(memory_fd_ >= 0 && ftruncate(memory_fd_, kMemoryBytes) == 0, "memory");
    void* at = mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_, 0);
    must(at != MAP_FAILED, "mmap");
    memory_ = static_cast<uint8_t*>(at);
    kick_ = eventfd(0, EFD_CLOEXEC);
    call_ = eventfd(0, EFD_CLOEXEC);
    socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    must(connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0, path);
    negotiate();
  }

  // Runs for SECONDS; gives how many requests were answered, and in how many seconds.
  std::pair<uint64_t, double> run(uint64_t disk_bytes, unsigned depth, double seconds) {
    using Clock = std::chrono::steady_clock;
    std::mt19937_64 dice(1);
    const auto sector = [&] { return dice() % (disk_bytes / kReadBytes) * (kReadBytes / 512); };
    const auto begin = Clock::now();
    const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
    for (unsigned i = 0; i < depth; ++i) offer(i, sector());
    notify();
    uint64_t done = 0;
    double now = 0;
    while (now < seconds) {
      wait();
      unsigned answers = 0;
      while (index(kUsed + 2)->load(std::memory_order_acquire) != seen_) {
        const uint32_t head = *place<uint32_t>(kUsed + 4 + uint64_t{8} * (seen_ % kEntries));
        const unsigned slot = head / 3;
        if (memory_[kHeaders + slot * 32 + 16] != 0) throw std::runtime_error("a read failed");
        ++seen_;
        ++answers;
        offer(slot, sector());
      }
      if (answers != 0) notify();
      done += answers;
      now = passed();
    }
    return {done, now};
  }

 private:
  template <typename T>
  T* place(uint64_t offset) {
    return reinterpret_cast<T*>(memory_ + offset);
  }
  std::atomic<uint16_t>* index(uint64_t offset) { return place<std::atomic<uint16_t>>(offset); }

  void say(uint32_t message, const std::vector<uint64_t>& words, int descriptor = -1) {
    std::vector<uint32_t> bytes{message, 1, static_cast<uint32_t>(words.size() * 8)};
    bytes.resize(3 + words.size() * 2);
    if (!words.empty()) std::memcpy(bytes.data() + 3, words.data(), words.size() * 8);
    iovec part{bytes.data(), bytes.size() * 4};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (descriptor >= 0) {
      header.msg_control = control;
      header.msg_controllen = sizeof(control);
      cmsghdr* item = CMSG_FIRSTHDR(&header);
      item->cmsg_level = SOL_SOCKET;
      item->cmsg_type = SCM_RIGHTS;
      item->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(item), &descriptor, sizeof(int));
    }
    must(sendmsg(socket_, &header, 0) == static_cast<ssize_t>(part.iov_len), "sendmsg");
  }
  uint64_t ask(uint32_t message) {
    say(message, {});
    char answer[20];
    must(recv(socket_, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer), "recv");
    uint64_t value = 0;
    std::memcpy(&value, answer + 12, 8);
    return value;
  }

  void negotiate() {
    say(kSetOwner, {});
    if ((ask(kGetFeatures) & kFeatures) != kFeatures) throw std::runtime_error("features");
    ask(kGetProtocolFeatures);
    say(kSetProtocolFeatures, {0});
    say(kSetFeatures, {kFeatures});
    say(kSetMemTable, {1, kGuest, kMemoryBytes, kUser, 0}, memory_fd_);
    say(kSetVringNum, {uint64_t{kEntries} << 32});
    say(kSetVringBase, {0});
    say(kSetVringAddr, {0, kUser, kUser + kUsed, kUser + kAvailable, 0});
    say(kSetVringCall, {0}, call_);
    say(kSetVringKick, {0}, kick_);
    say(kSetVringEnable, {uint64_t{1} << 32});
  }

  void describe(unsigned number, uint64_t offset, uint32_t length, uint16_t flags) {
    *place<uint64_t>(number * 16) = kGuest + offset;
    *place<uint32_t>(number * 16 + 8) = length;
    *place<uint16_t>(number * 16 + 12) = flags;
    *place<uint16_t>(number * 16 + 14) = static_cast<uint16_t>(number + 1);
  }
  void offer(unsigned slot, uint64_t sector) {
    constexpr uint16_t kNext = 1, kWrite = 2;
    const uint64_t header = kHeaders + slot * 32;
    *place<uint64_t>(header) = 0;  // a read
    *place<uint64_t>(header + 8) = sector;
    memory_[header + 16] = 255;
    describe(slot * 3, header, 16, kNext);
    describe(slot * 3 + 1, kBuffers + slot * kReadBytes, kReadBytes, kNext | kWrite);
    describe(slot * 3 + 2, header + 16, 1, kWrite);
    *place<uint16_t>(kAvailable + 4 + uint64_t{2} * (made_ % kEntries)) =
        static_cast<uint16_t>(slot * 3);
    index(kAvailable + 2)->store(++made_, std::memory_order_release);
  }
  void notify() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    constexpr uint16_t kNoNotify = 1;
    const uint64_t one = 1;
    if ((*place<volatile uint16_t>(kUsed) & kNoNotify) == 0)
      must(write(kick_, &one, 8) == 8, "kick");
  }
  void wait() {
    pollfd called{call_, POLLIN, 0};
    must(poll(&called, 1, kWaitMilliseconds) == 1, "no answer");
    uint64_t calls = 0;
    must(read(call_, &calls, 8) == 8, "call");
  }

  int memory_fd_ = -1;
  int socket_ = -1;
  int kick_ = -1;
  int call_ = -1;
  uint8_t* memory_ = nullptr;
  uint16_t made_ = 0;
  uint16_t seen_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 5) throw std::runtime_error("SOCKET DISK_BYTES DEPTH SECONDS");
    const auto depth = static_cast<unsigned>(std::stoul(argv[3]));
    if (depth == 0 || depth * 3 > kEntries) throw std::runtime_error("depth: 1 to 85");
    FrontEnd front_end(argv[1]);
    const auto [done, seconds] = front_end.run(std::stoull(argv[2]), depth, std::stod(argv[4]));
    std::cout << static_cast<double>(done) / seconds << ' '
              << seconds * 1e6 * depth / static_cast<double>(done) << '\n';
  } catch (const std::exception& error) {
    std::cerr << "vhost_user_reads: " << error.what() << '\n';
    return 1;
  }
}
