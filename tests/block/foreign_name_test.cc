#include "block/foreign_name.h"

#include <gtest/gtest.h>

namespace cairn {
namespace {

TEST(ForeignNames, NamesOfOtherSystemsAreKnown) {
  for (const char* name : {"\\\\.\\PhysicalDrive0", "\\\\.\\d:", "//./PhysicalDrive12",
                           "d:", "D:", "c:\\disks\\a.vhd", "c:/disks/a.vhd", "\\\\?\\C:\\a.vhd"})
    EXPECT_NE(foreign_name_advice(name).find("of Windows"), std::string::npos) << name;
  EXPECT_NE(foreign_name_advice("\\\\.\\CdRom0").find("/dev/sr0"), std::string::npos);
  EXPECT_NE(foreign_name_advice("d:").find("/dev/sr0"), std::string::npos);
  for (const char* name : {"/dev/disk2", "/dev/rdisk0s1"})
    EXPECT_NE(foreign_name_advice(name).find("of macOS"), std::string::npos) << name;
  EXPECT_NE(foreign_name_advice("/dev/cdrom").find("/dev/sr0"), std::string::npos);
  EXPECT_NE(foreign_name_advice("/dev/fd0").find("floppy"), std::string::npos);
}

TEST(ForeignNames, OthersAreNot) {
  for (const char* name : {"", "d", "dd:x", "nbd://host", "disk.raw", "/dev/sda", "/dev/fd/3",
                           "/dev/disk/by-id/x", "//server/share", "\\.\\x", "1:", "/d:/x"})
    EXPECT_EQ(foreign_name_advice(name), "") << name;
}

}  // namespace
}  // namespace cairn
