// Image locks that are held by others, and by nobody any more.
#include "protocol/file/locks.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "base/own_fd.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

constexpr Permissions kWriter{Permissions::kWrite, Permissions::kWrite};

class Locks : public testing::Test {
 protected:
  Locks() { std::ofstream(name_) << "x"; }
  OwnFd open() const { return OwnFd(::open(name_.c_str(), O_RDWR | O_CLOEXEC)); }

  // Takes the locks in a file that is then only on its way through a socket: nobody has it open.
  OwnFd lock_in_flight() const {
    int pair[2] = {};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const OwnFd sender(pair[0]);
    const OwnFd file = open();
    ImageLocks(file.get(), name_, Locking::kOn).change(kWriter);
    char byte = 0;
    iovec data = {&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = file.get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    EXPECT_EQ(::sendmsg(sender.get(), &message, 0), 1);
    return OwnFd(pair[1]);
  }

  std::string refusal() const {
    const OwnFd file = open();
    ImageLocks locks(file.get(), name_, Locking::kOn);
    std::string message = error_of([&] { locks.change(kWriter); });
    EXPECT_EQ(locks.held(), message.empty() ? kWriter : Permissions());
    return message;
  }

  Folder folder_;
  std::string name_ = folder_.file("image");
};

TEST_F(Locks, WaitForTheKernelToLetGoOfWhatNobodyHasOpen) {
  OwnFd flight = lock_in_flight();
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    flight = OwnFd();
  });
  EXPECT_EQ(refusal(), "");
  later.join();
}

TEST_F(Locks, DoNotWaitForEver) {
  const OwnFd flight = lock_in_flight();
  EXPECT_NE(refusal().find("Failed to get \"write\" lock"), std::string::npos);
}

TEST_F(Locks, AreRefusedAtOnceWithinOneProcess) {
  const OwnFd file = open();
  ImageLocks(file.get(), name_, Locking::kOn).change(kWriter);
  EXPECT_NE(refusal().find("Failed to get \"write\" lock"), std::string::npos);
}

}  // namespace
}  // namespace cairn
