#include "platform/drives.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "platform/types.h"

namespace cairn::platform {
namespace {

// A machine with the system on disk 0 (c:), data on disk 1 (d:, e:), and a CD drive (f:).
class FakeDrives : public DriveCalls {
 public:
  std::vector<char> letters() override { return {'c', 'd', 'e', 'f'}; }
  bool is_cdrom(char letter) override { return cdrom && letter == 'f'; }
  char system_letter() override { return 'c'; }
  Handle open(const std::string& path, bool writable) override {
    if (missing.contains(path)) {
      errno = ENOENT;
      return kNone;
    }
    log.push_back((writable ? "write " : "read ") + path);
    paths[++last] = path;
    return last;
  }
  void close(Handle drive) override { ASSERT_EQ(paths.erase(drive), 1U); }
  std::optional<uint64_t> length(Handle) override {
    if (!length_known) errno = EOPNOTSUPP;
    return length_known ? std::optional<uint64_t>(1 << 20) : std::nullopt;
  }
  std::optional<uint32_t> sector_bytes(Handle) override { return sector; }
  std::vector<unsigned> disks_of(Handle volume) override { return disks[paths.at(volume)[4]]; }
  bool lock(Handle volume) override {
    log.push_back("lock " + paths.at(volume));
    return !used.contains(paths.at(volume)[4]);
  }
  bool dismount(Handle volume) override {
    log.push_back("dismount " + paths.at(volume));
    return true;
  }

  bool cdrom = true;
  bool length_known = true;
  uint32_t sector = 4096;
  std::set<char> used;
  std::set<std::string> missing;
  std::map<char, std::vector<unsigned>> disks = {{'c', {0}}, {'d', {1}}, {'e', {1}}, {'f', {}}};
  std::map<Handle, std::string> paths;  // what is open
  std::vector<std::string> log;
  Handle last = 0;
};

std::string path_of(FakeDrives& calls, const std::string& name) {
  const auto found = drive_name(calls, name);
  return found ? found->path() : "";
}

TEST(Drives, NamesOfDrives) {
  FakeDrives calls;
  EXPECT_EQ(path_of(calls, "\\\\.\\PhysicalDrive1"), "\\\\.\\PhysicalDrive1");
  EXPECT_EQ(path_of(calls, "//./physicaldrive12"), "\\\\.\\PhysicalDrive12");
  EXPECT_EQ(path_of(calls, "D:"), "\\\\.\\d:");
  EXPECT_EQ(path_of(calls, "\\\\.\\d:"), "\\\\.\\d:");
  EXPECT_EQ(path_of(calls, "/dev/cdrom"), "\\\\.\\f:");
  for (const char* name :
       {"", "d", "d:x", "1:", "PhysicalDrive1", "\\\\.\\PhysicalDrive", "\\\\.\\PhysicalDrive1x",
        "\\\\.\\PhysicalDrive-1", "\\\\.\\PhysicalDrive99999999999", "\\\\.\\", "c:\\disk.raw"})
    EXPECT_EQ(path_of(calls, name), "") << name;
  calls.cdrom = false;
  EXPECT_FALSE(drive_name(calls, "/dev/cdrom"));
  EXPECT_EQ(errno, ENOMEDIUM);
}

TEST(Drives, ReadingLocksNothing) {
  FakeDrives calls;
  auto drive = open_drive(calls, {.disk = true, .number = 0}, false);
  ASSERT_TRUE(drive);
  EXPECT_EQ(drive->length, uint64_t{1} << 20);
  EXPECT_EQ(drive->sector_bytes, 4096U);
  EXPECT_EQ(calls.log, std::vector<std::string>{"read \\\\.\\PhysicalDrive0"});
  close_drive(calls, *drive);
  EXPECT_TRUE(calls.paths.empty());
}

TEST(Drives, VolumesAreLockedAndDismountedBeforeTheirDiskIsWrittenTo) {
  FakeDrives calls;
  auto drive = open_drive(calls, {.disk = true, .number = 1}, true);
  ASSERT_TRUE(drive);
  EXPECT_EQ(drive->locked.size(), 2U);
  EXPECT_EQ(calls.log.back(), "write \\\\.\\PhysicalDrive1");
  const auto at = [&](const std::string& line) {
    return std::find(calls.log.begin(), calls.log.end(), line) - calls.log.begin();
  };
  EXPECT_LT(at("lock \\\\.\\d:"), at("dismount \\\\.\\d:"));
  EXPECT_LT(at("dismount \\\\.\\e:"), at("write \\\\.\\PhysicalDrive1"));
  EXPECT_EQ(at("lock \\\\.\\c:"), std::ssize(calls.log));
  EXPECT_EQ(calls.paths.size(), 3U);
  close_drive(calls, *drive);
  EXPECT_TRUE(calls.paths.empty());
}

TEST(Drives, VolumeIsWrittenToThroughTheHandleThatLockedIt) {
  FakeDrives calls;
  auto drive = open_drive(calls, {.letter = 'd'}, true);
  ASSERT_TRUE(drive);
  EXPECT_TRUE(drive->locked.empty());
  EXPECT_EQ(calls.log,
            (std::vector<std::string>{"write \\\\.\\d:", "lock \\\\.\\d:", "dismount \\\\.\\d:"}));
  close_drive(calls, *drive);
}

TEST(Drives, TheSystemsOwnDriveIsNotWrittenTo) {
  FakeDrives calls;
  for (const DriveName name : {DriveName{.disk = true, .number = 0}, DriveName{.letter = 'c'}}) {
    EXPECT_FALSE(open_drive(calls, name, true));
    EXPECT_EQ(errno, EPERM);
  }
  // Where the disks below the system cannot be known, none is.
  calls.disks['c'].clear();
  EXPECT_FALSE(open_drive(calls, {.disk = true, .number = 1}, true));
  EXPECT_EQ(errno, EPERM);
  EXPECT_TRUE(calls.paths.empty());
}

TEST(Drives, VolumeInUseRefusesItsDisk) {
  FakeDrives calls;
  calls.used = {'e'};
  EXPECT_FALSE(open_drive(calls, {.disk = true, .number = 1}, true));
  EXPECT_EQ(errno, EBUSY);
  EXPECT_TRUE(calls.paths.empty());
}

TEST(Drives, FailuresLeaveNothingOpen) {
  FakeDrives calls;
  calls.length_known = false;
  EXPECT_FALSE(open_drive(calls, {.disk = true, .number = 1}, true));
  EXPECT_EQ(errno, EOPNOTSUPP);
  EXPECT_TRUE(calls.paths.empty());
  calls.missing = {"\\\\.\\PhysicalDrive7", "\\\\.\\d:"};
  EXPECT_FALSE(open_drive(calls, {.disk = true, .number = 7}, false));
  EXPECT_EQ(errno, ENOENT);
  EXPECT_FALSE(open_drive(calls, {.letter = 'd'}, true));
  EXPECT_EQ(errno, ENOENT);
  calls.missing = {"\\\\.\\z:"};
  EXPECT_FALSE(open_drive(calls, {.letter = 'z'}, true));
  EXPECT_EQ(errno, ENOENT);
  EXPECT_TRUE(calls.paths.empty());
}

TEST(Drives, SectorsThatMakeNoSenseAreTakenAsUsual) {
  FakeDrives calls;
  for (const uint32_t sector : {0U, 1U, 520U, 1U << 30}) {
    calls.sector = sector;
    auto drive = open_drive(calls, {.letter = 'f'}, false);
    ASSERT_TRUE(drive);
    EXPECT_EQ(drive->sector_bytes, 512U);
    close_drive(calls, *drive);
  }
}

}  // namespace
}  // namespace cairn::platform
