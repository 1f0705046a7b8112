// The sources for macOS, compiled against declarations of its calls (darwin/include) and run here
// against this file, which answers the calls that only macOS has.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>

#define __APPLE__ 1
#include <CoreFoundation/CoreFoundation.h>
#include <IOKit/IOKitLib.h>
#include <libproc.h>
#include <sys/disk.h>
#include <sys/mount.h>

#include "base/error.h"
#include "base/own_fd.h"
#include "platform/macos/disks.h"
#include "platform/platform.h"
#include "protocol/file/alignment.h"
#include "protocol/file/open_file.h"

#undef fcntl
#undef ioctl
#undef fstatfs
#undef pread
#undef stat
extern "C" int fcntl(int fd, int command, ...);
extern "C" int fallocate(int fd, int mode, off_t offset, off_t length);

namespace {

constexpr uint32_t kBlock = 4096;

struct Mac {
  std::vector<int> commands;  // of fcntl, those that macOS alone has
  std::vector<int> errors;    // how the next of them fail; 0: they do not
  fpunchhole_t hole = {};
  fstore_t room = {};
  uint32_t disk_block = 0;  // 0: files are no disks
  uint64_t disk_blocks = 0;
  uint32_t disk_writable = 1;
  dk_extent_t unmapped = {};
  std::vector<struct statfs> mounts;
  const char* device = nullptr;
  std::vector<std::pair<std::string, std::string>> media;  // their kind and their name
  std::string asked;
  size_t next_medium = 0;
  std::vector<pid_t> users;
  std::map<std::string, int> disks;  // character devices, and the files that answer for them
  std::vector<std::string> opened;
  int last_opened = -1;
};
Mac mac;

// The media of the kind that was asked for are the objects 2, 3, …; 1 is their list.
io_object_t next_of_kind() {
  while (mac.next_medium < mac.media.size())
    if (mac.media[mac.next_medium++].first == mac.asked)
      return static_cast<io_object_t>(mac.next_medium + 1);
  return 0;
}

}  // namespace

extern "C" {

int darwin_fcntl(int fd, int command, ...) {
  va_list list;
  va_start(list, command);
  void* const argument = va_arg(list, void*);
  va_end(list);
  if (command < F_PREALLOCATE) return ::fcntl(fd, command, argument);
  mac.commands.push_back(command);
  const int error = mac.errors.empty() ? 0 : mac.errors.front();
  if (!mac.errors.empty()) mac.errors.erase(mac.errors.begin());
  if (error != 0) {
    errno = error;
    return -1;
  }
  if (command == F_PUNCHHOLE) {
    mac.hole = *static_cast<fpunchhole_t*>(argument);
    return ::fallocate(fd, 3, mac.hole.fp_offset, mac.hole.fp_length);
  }
  if (command == F_PREALLOCATE) mac.room = *static_cast<fstore_t*>(argument);
  if (command == F_GETPATH) {
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t length = ::readlink(link.c_str(), static_cast<char*>(argument), 1023);
    static_cast<char*>(argument)[length] = 0;
  }
  return 0;
}

int darwin_stat(const char* path, struct stat* found) {
  const auto disk = mac.disks.find(path);
  if (disk == mac.disks.end()) return ::stat(path, found);
  *found = {};
  found->st_mode = S_IFCHR | 0640;
  return 0;
}

// A disk takes whole blocks alone.
ssize_t darwin_pread(int fd, void* bytes, size_t count, off_t offset) {
  if (mac.disk_block == 0 || (static_cast<uint64_t>(offset) | count) % mac.disk_block == 0)
    return ::pread(fd, bytes, count, offset);
  errno = EINVAL;
  return -1;
}

int renameatx_np(int from_folder, const char* from, int to_folder, const char* to, unsigned) {
  return ::renameat(from_folder, from, to_folder, to);
}

int fsync_volume_np(int, int) { return 0; }

int darwin_ioctl(int, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void* const argument = va_arg(list, void*);
  va_end(list);
  if (mac.disk_block == 0) {
    errno = ENOTTY;
    return -1;
  }
  if (request == DKIOCGETBLOCKSIZE) *static_cast<uint32_t*>(argument) = mac.disk_block;
  if (request == DKIOCGETBLOCKCOUNT) *static_cast<uint64_t*>(argument) = mac.disk_blocks;
  if (request == DKIOCISWRITABLE) *static_cast<uint32_t*>(argument) = mac.disk_writable;
  if (request == DKIOCUNMAP) mac.unmapped = *static_cast<dk_unmap_t*>(argument)->extents;
  return 0;
}

int darwin_fstatfs(int, struct statfs* found) {
  *found = {};
  found->f_bsize = kBlock;
  found->f_blocks = 100;
  found->f_bfree = 10;
  found->f_bavail = 5;
  return 0;
}

int darwin_statfs(const char*, struct statfs* found) { return darwin_fstatfs(0, found); }

int getmntinfo(struct statfs** mounts, int) {
  *mounts = mac.mounts.data();
  return static_cast<int>(mac.mounts.size());
}

char* devname_r(dev_t, mode_t kind, char* name, int room) {
  if (kind != S_IFBLK || mac.device == nullptr) return nullptr;
  std::snprintf(name, static_cast<size_t>(room), "%s", mac.device);
  return name;
}

int proc_listpidspath(uint32_t, uint32_t, const char*, uint32_t, void* buffer, int) {
  const size_t bytes = mac.users.size() * sizeof(pid_t);
  if (bytes != 0) std::memcpy(buffer, mac.users.data(), bytes);
  return static_cast<int>(bytes);
}

int proc_name(int, void* buffer, uint32_t room) {
  return std::snprintf(static_cast<char*>(buffer), room, "qemu");
}

CFMutableDictionaryRef IOServiceMatching(const char* name) {
  mac.asked = name;
  mac.next_medium = 0;
  return nullptr;
}

kern_return_t IOServiceGetMatchingServices(mach_port_t, CFDictionaryRef, io_iterator_t* found) {
  *found = 1;
  return KERN_SUCCESS;
}

io_object_t IOIteratorNext(io_iterator_t) { return next_of_kind(); }
kern_return_t IOObjectRelease(io_object_t) { return KERN_SUCCESS; }

CFTypeRef IORegistryEntryCreateCFProperty(io_object_t entry, CFStringRef, CFAllocatorRef,
                                          unsigned) {
  return mac.media[entry - 2].second.c_str();
}

CFTypeID CFGetTypeID(CFTypeRef) { return 7; }
CFTypeID CFStringGetTypeID() { return 7; }
void CFRelease(CFTypeRef) {}

Boolean CFStringGetCString(CFStringRef text, char* bytes, CFIndex room, uint32_t) {
  std::snprintf(bytes, static_cast<size_t>(room), "%s", reinterpret_cast<const char*>(text));
  return 1;
}

int memset_s(void* bytes, size_t, int value, size_t count) {
  std::memset(bytes, value, count);
  return 0;
}

}  // extern "C"

int pthread_setname_np(const char*) { return 0; }

int open(const char* path, int flags, unsigned mode) {
  mac.opened.emplace_back(path);
  const auto disk = mac.disks.find(path);
  mac.last_opened =
      disk != mac.disks.end() ? ::dup(disk->second) : ::openat(AT_FDCWD, path, flags, mode);
  return mac.last_opened;
}

namespace cairn::platform {
namespace {

class MacOs : public testing::Test {
 protected:
  MacOs() {
    mac = {};
    fd_ = open_unnamed(testing::TempDir());
    const std::string bytes(5 * kBlock + 100, 'x');
    EXPECT_EQ(write_at(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  ~MacOs() override { platform::close(fd_); }

  std::string content() const {
    std::string bytes(static_cast<size_t>(status_of(fd_)->size), 0);
    EXPECT_EQ(read_at(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  // What the file shall be after COUNT bytes at OFFSET have become zeroes.
  static std::string zeroed(size_t offset, size_t count) {
    std::string bytes(5 * kBlock + 100, 'x');
    return bytes.replace(offset, count, count, '\0');
  }

  int fd_ = -1;
};

TEST_F(MacOs, KnowsTheNamesOfDisks) {
  const auto part = disk_of("/dev/rdisk12s3s1");
  ASSERT_TRUE(part);
  EXPECT_EQ(part->unit, 12u);
  EXPECT_EQ(part->slices, "s3s1");
  EXPECT_TRUE(part->raw);
  EXPECT_FALSE(disk_of("disk0")->raw);
  for (const char* none : {"", "disk", "diskette", "/dev/disk2s", "disk2s1x", "/dev/sda", "disk2 ",
                           "disk99999999999", "/dev/rdisk", "/tmp/disk2", "disk-1"})
    EXPECT_FALSE(disk_of(none)) << none;
}

TEST_F(MacOs, OpensDisksByTheirCharacterDevice) {
  EXPECT_EQ(device_to_open("/dev/disk2"), "/dev/rdisk2");
  EXPECT_EQ(device_to_open("/dev/disk2s1"), "/dev/rdisk2s1");
  EXPECT_EQ(device_to_open("/dev/rdisk2"), "/dev/rdisk2");
  EXPECT_EQ(device_to_open("disk2"), "disk2");
  EXPECT_EQ(device_to_open("/tmp/a.raw"), "/tmp/a.raw");
}

TEST_F(MacOs, FindsTheFirstOpticalMedium) {
  EXPECT_EQ(device_to_open("/dev/cdrom"), "");
  EXPECT_EQ(errno, ENOMEDIUM);
  mac.media = {{"IOBDMedia", "disk9"}, {"IODVDMedia", "disk4"}, {"IODVDMedia", "disk5"}};
  EXPECT_EQ(first_optical_medium(), "/dev/disk4");
  mac.media.push_back({"IOCDMedia", "disk6"});
  EXPECT_EQ(device_to_open("/dev/cdrom"), "/dev/rdisk6");
  mac.media = {{"IOCDMedia", "../../etc/passwd"}};
  EXPECT_EQ(first_optical_medium(), "");
}

TEST_F(MacOs, ADiskIsMountedWhereAPartOfItIs) {
  const auto mounted = [](const char* from) {
    struct statfs one = {};
    std::strcpy(one.f_mntfromname, from);
    std::strcpy(one.f_mntonname, "/Volumes/stick");
    mac.mounts = {one};
    return mount_point(1);
  };
  EXPECT_EQ(mounted("/dev/disk2s1"), "");
  mac.device = "disk2";
  EXPECT_EQ(mounted("/dev/disk2s1"), "/Volumes/stick");
  EXPECT_EQ(mounted("/dev/disk2"), "/Volumes/stick");
  EXPECT_EQ(mounted("/dev/disk21"), "");
  EXPECT_EQ(mounted("map -hosts"), "");
  mac.device = "rdisk2s1";
  EXPECT_EQ(mounted("/dev/disk2"), "/Volumes/stick");
  EXPECT_EQ(mounted("/dev/disk2s1s1"), "/Volumes/stick");
  EXPECT_EQ(mounted("/dev/disk2s12"), "");
  EXPECT_EQ(mounted("/dev/disk2s2"), "");
}

TEST_F(MacOs, AsksDisksForTheirSize) {
  EXPECT_EQ(end_of(fd_), 5 * kBlock + 100);
  EXPECT_FALSE(logical_block_bytes(fd_));
  mac.disk_block = 512;
  mac.disk_blocks = 2048;
  EXPECT_EQ(end_of(fd_), 1u << 20);
  EXPECT_EQ(logical_block_bytes(fd_), 512u);
  EXPECT_FALSE(is_write_protected(fd_));
  mac.disk_writable = 0;
  EXPECT_TRUE(is_write_protected(fd_));
  EXPECT_EQ(discard_blocks(fd_, 4096, 8192), 0);
  EXPECT_EQ(mac.unmapped.offset, 4096u);
  EXPECT_EQ(mac.unmapped.length, 8192u);
  mac.disk_blocks = UINT64_MAX / 2;
  EXPECT_FALSE(disk_bytes(fd_));
}

TEST_F(MacOs, PunchesWholeBlocksAndWritesTheRest) {
  ASSERT_EQ(allocate(fd_, Allocation::kPunch, 100, 3 * kBlock), 0);
  EXPECT_EQ(mac.hole.fp_offset, kBlock);
  EXPECT_EQ(mac.hole.fp_length, 2 * kBlock);
  EXPECT_TRUE(content() == zeroed(100, 3 * kBlock));
}

TEST_F(MacOs, PunchesNothingPastTheEnd) {
  ASSERT_EQ(allocate(fd_, Allocation::kPunch, 4 * kBlock, 100 * kBlock), 0);
  EXPECT_EQ(mac.hole.fp_length, kBlock);
  EXPECT_TRUE(content() == zeroed(4 * kBlock, kBlock + 100));
  ASSERT_EQ(allocate(fd_, Allocation::kPunch, 9 * kBlock, kBlock), 0);
  ASSERT_EQ(allocate(fd_, Allocation::kPunch, 10, 20), 0);
  EXPECT_EQ(mac.commands, std::vector{F_PUNCHHOLE});
}

TEST_F(MacOs, AFileSystemWithoutHolesSaysSo) {
  mac.errors = {ENOTSUP, EIO};
  EXPECT_EQ(allocate(fd_, Allocation::kPunch, 0, kBlock), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_EQ(allocate(fd_, Allocation::kPunch, 0, kBlock), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(allocate(fd_, Allocation::kZero, 0, kBlock), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_TRUE(content() == zeroed(0, 0));
}

TEST_F(MacOs, ReservesPastTheEndInOnePieceOrInSeveral) {
  mac.errors = {ENOSPC};
  EXPECT_EQ(reserve(fd_, 8 * kBlock, kBlock), 0);
  EXPECT_EQ(mac.commands, (std::vector{F_PREALLOCATE, F_PREALLOCATE}));
  EXPECT_EQ(mac.room.fst_posmode, F_PEOFPOSMODE);
  EXPECT_EQ(mac.room.fst_flags, unsigned{F_ALLOCATEALL});
  EXPECT_EQ(mac.room.fst_length, 4 * kBlock - 100);
  EXPECT_EQ(status_of(fd_)->size, 9 * kBlock);
  mac.errors = {ENOSPC, ENOSPC};
  EXPECT_EQ(reserve(fd_, 9 * kBlock, kBlock), ENOSPC);
  EXPECT_EQ(allocate(fd_, Allocation::kReserve, UINT64_MAX - 5, kBlock), -1);
  EXPECT_EQ(errno, EFBIG);
}

TEST_F(MacOs, ReservesByWritingWhereItMust) {
  EXPECT_EQ(reserve(fd_, kBlock, 2 * kBlock), 0);
  EXPECT_TRUE(content() == zeroed(0, 0));
  mac.errors = {ENOTSUP, ENOTSUP};
  EXPECT_EQ(reserve(fd_, 5 * kBlock, 2 * kBlock), 0);
  EXPECT_TRUE(content() == zeroed(0, 0) + std::string(2 * kBlock - 100, '\0'));
}

TEST_F(MacOs, FlushesTheCacheOfTheDrive) {
  EXPECT_EQ(sync(fd_), 0);
  EXPECT_EQ(sync_data(fd_), 0);
  EXPECT_EQ(mac.commands, (std::vector{F_FULLFSYNC, F_FULLFSYNC}));
  mac.errors = {ENOTSUP, EIO};
  EXPECT_EQ(sync(fd_), 0);
  EXPECT_EQ(sync(fd_), -1);
  EXPECT_EQ(errno, EIO);
}

TEST_F(MacOs, DirectFilesAreNotCached) {
  const int direct = platform::open("/dev/null", O_RDONLY | O_DIRECT);
  EXPECT_GE(direct, 0);
  EXPECT_EQ(mac.commands, std::vector{F_NOCACHE});
  platform::close(direct);
}

TEST_F(MacOs, LocksAreThoseOfTheProcess) {
  EXPECT_EQ(lock_byte(fd_, 100, LockOwner::kOpenFile), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  ASSERT_EQ(lock_byte(fd_, 100, LockOwner::kProcess), 0);
  EXPECT_EQ(byte_is_locked(fd_, 100, LockOwner::kProcess), 0);
  const auto seen_by_others = [&] {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(byte_is_locked(fd_, 100, LockOwner::kProcess));
    int ended = 0;
    ::waitpid(child, &ended, 0);
    return WEXITSTATUS(ended);
  };
  EXPECT_EQ(seen_by_others(), 1);
  ASSERT_EQ(unlock_byte(fd_, 100, LockOwner::kProcess), 0);
  EXPECT_EQ(seen_by_others(), 0);
}

TEST_F(MacOs, NamesWhoElseHasAFileOpen) {
  EXPECT_EQ(other_user_of(fd_), "");
  mac.users = {::getpid(), 4711};
  EXPECT_EQ(other_user_of(fd_), "process 4711 (qemu)");
}

TEST_F(MacOs, WakesByAPipe) {
  const Wake wake;
  pollfd one = {wake.descriptor(), POLLIN, 0};
  EXPECT_EQ(platform::poll({&one, 1}, 0), 0);
  for (int times = 0; times < 100000; ++times) wake.ring();
  EXPECT_EQ(platform::poll({&one, 1}, 0), 1);
  wake.clear();
  EXPECT_EQ(platform::poll({&one, 1}, 0), 0);
}

TEST_F(MacOs, FreeSpaceAndRandomBytes) {
  EXPECT_EQ(free_bytes(fd_), 10 * kBlock);
  EXPECT_EQ(bytes_for_user("/"), 5 * kBlock);
  std::string bytes(1000, 0);
  ASSERT_TRUE(random_bytes(bytes.data(), bytes.size()));
  EXPECT_NE(bytes.substr(900), std::string(100, 0));
}

// How the driver of devices opens what a user names.
class MacOsDevice : public MacOs {
 protected:
  MacOsDevice() {
    mac.disks = {{"/dev/rdisk2", fd_}};
    mac.disk_block = 512;
    mac.disk_blocks = 40;
    mac.device = "disk2";
    mac.opened.clear();
  }
  static void mount(const char* from) {
    struct statfs one = {};
    std::strcpy(one.f_mntfromname, from);
    std::strcpy(one.f_mntonname, "/Volumes/stick");
    mac.mounts = {one};
  }
  // What it says where it is refused.
  static std::string refusal(const std::string& path, const OpenMode& mode) {
    std::string said;
    try {
      open_file(FileKind::kDevice, path, mode);
    } catch (const Error& error) {
      said = error.what();
      for (const auto& hint : error.hints()) said += "\n" + hint.text;
    }
    return said;
  }
};

TEST_F(MacOsDevice, IsOpenedByItsCharacterDevice) {
  const OwnFd disk = open_file(FileKind::kDevice, "/dev/disk2", {.writable = true});
  EXPECT_EQ(mac.opened, std::vector<std::string>{"/dev/rdisk2"});
  EXPECT_EQ(end_of(disk.get()), 20480u);
  mac.media = {{"IOCDMedia", "disk2"}};
  EXPECT_TRUE(open_file(FileKind::kDevice, "/dev/cdrom", {}));
  EXPECT_EQ(mac.opened.back(), "/dev/rdisk2");
  mac.media.clear();
  const std::string said = refusal("/dev/cdrom", {});
  EXPECT_NE(said.find("'/dev/cdrom': No medium found"), std::string::npos) << said;
}

TEST_F(MacOsDevice, IsRefusedWhileItIsMounted) {
  mount("/dev/disk2s1");
  const std::string said = refusal("/dev/disk2", {.writable = true, .exclusive = true});
  EXPECT_NE(said.find("mounted on '/Volumes/stick'"), std::string::npos) << said;
  EXPECT_EQ(said.find("exclusive=off"), std::string::npos) << said;
  EXPECT_EQ(::fcntl(mac.last_opened, F_GETFD), -1);
  EXPECT_EQ(refusal("/dev/disk2", {}), "");
  mount("/dev/disk3s1");
  EXPECT_EQ(refusal("/dev/disk2", {.writable = true, .exclusive = true}), "");
  mac.disk_writable = 0;
  EXPECT_NE(refusal("/dev/disk2", {.writable = true}).find("not writable"), std::string::npos);
}

TEST_F(MacOsDevice, GetsWholeBlocks) {
  EXPECT_TRUE(takes_whole_blocks(fd_));
  for (const uint32_t block : {512u, 2048u, 4096u, 8192u}) {
    mac.disk_block = block;
    const Alignment found = find_alignment(fd_, *logical_block_bytes(fd_));
    EXPECT_EQ(found.request, block);
    EXPECT_EQ(found.memory, block);
  }
  mac.disk_block = 2352;
  EXPECT_THROW(find_alignment(fd_, 2352), Error);
}

// Paths below a directory that is held open.
class MacOsFolder : public testing::Test {
 protected:
  MacOsFolder() {
    mac = {};
    namespace fs = std::filesystem;
    fs::remove_all(top_);
    fs::create_directories(top_ + "/in/deep");
    fs::create_directories(top_ + "-beside");
    for (const std::string name : {"/in/deep/file", "-beside/file"})
      ::close(::creat((top_ + name).c_str(), 0600));
    fs::create_symlink("deep/file", top_ + "/in/inside");
    fs::create_symlink("deep", top_ + "/in/folder");
    fs::create_symlink(top_ + "-beside/file", top_ + "/in/outside");
    fs::create_symlink(top_ + "-beside", top_ + "/in/away");
    folder_ = open_folder(top_);
  }
  ~MacOsFolder() override {
    platform::close(folder_);
    std::filesystem::remove_all(top_);
    std::filesystem::remove_all(top_ + "-beside");
  }

  // The error number; 0: it is opened.
  int opening(const std::string& path, Links links) const {
    const int fd = open_below(folder_, path, O_RDONLY, links);
    if (fd < 0) return errno;
    platform::close(fd);
    return 0;
  }

  const std::string top_ = std::filesystem::canonical(testing::TempDir()) / "cairn-macos";
  int folder_ = -1;
};

TEST_F(MacOsFolder, PathsStayBelowIt) {
  for (const Links links : {Links::kRefuse, Links::kFollow}) {
    EXPECT_EQ(opening("", links), 0);
    EXPECT_EQ(opening("in", links), 0);
    EXPECT_EQ(opening("in/deep/file", links), 0);
    EXPECT_EQ(opening("in/none", links), ENOENT);
    EXPECT_EQ(opening("none/file", links), ENOENT);
    EXPECT_EQ(opening("in/deep/file/more", links), ENOTDIR);
  }
}

TEST_F(MacOsFolder, LinksAreRefusedOrStayBelowIt) {
  for (const char* link : {"in/inside", "in/folder/file", "in/outside", "in/away/file"})
    EXPECT_EQ(opening(link, Links::kRefuse), ELOOP) << link;
  EXPECT_EQ(opening("in/inside", Links::kFollow), 0);
  EXPECT_EQ(opening("in/folder/file", Links::kFollow), 0);
  EXPECT_EQ(opening("in/outside", Links::kFollow), EXDEV);
  EXPECT_EQ(opening("in/away/file", Links::kFollow), EXDEV);
}

TEST_F(MacOsFolder, StatusIsThatOfWhatIsBelowIt) {
  const auto type = [&](const std::string& path, Links links) {
    const auto found = status_below(folder_, path, links);
    return found ? std::optional(found->type) : std::nullopt;
  };
  EXPECT_EQ(type("", Links::kRefuse), FileType::kDirectory);
  EXPECT_EQ(type("in/deep/file", Links::kRefuse), FileType::kRegular);
  EXPECT_EQ(type("in/inside", Links::kRefuse), FileType::kLink);
  EXPECT_EQ(type("in/inside", Links::kFollow), FileType::kRegular);
  EXPECT_EQ(type("in/folder", Links::kFollow), FileType::kDirectory);
  EXPECT_EQ(type("in/folder/file", Links::kRefuse), std::nullopt);
  EXPECT_EQ(errno, ELOOP);
  EXPECT_EQ(type("in/outside", Links::kFollow), std::nullopt);
  EXPECT_EQ(errno, EXDEV);
}

}  // namespace
}  // namespace cairn::platform
