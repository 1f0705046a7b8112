#include <gtest/gtest.h>

#include "protocol/vvfat/image.h"
#include "protocol/vvfat/layout.h"
#include "protocol/vvfat/names.h"

namespace cairn::vvfat {
namespace {

TEST(VvfatLayout, GeometriesAreThoseOfQemu) {
  const auto check = [](const Geometry& g, uint64_t bytes, uint32_t fat, uint64_t root,
                        uint32_t usable) {
    EXPECT_EQ(g.disk_bytes(), bytes);
    EXPECT_EQ(g.fat_sectors, fat);
    EXPECT_EQ(g.root_offset(), root * kSectorBytes);
    EXPECT_EQ(g.usable_clusters, usable);
  };
  check(Geometry::disk(FatType::k16), 528482304, 252, 568, 64470);
  check(Geometry::disk(FatType::k12), 33030144, 12, 88, 4020);
  check(Geometry::floppy_disk(false), 2949120, 2, 5, 357);
  check(Geometry::floppy_disk(true), 1474560, 1, 3, 177);
}

TEST(VvfatLayout, TablesOfFat32HoldEveryCluster) {
  for (const uint32_t each : {1u, 8u, 128u}) {
    for (uint64_t clusters = 65600; clusters < 70000; clusters += 37) {
      const Geometry g = Geometry::fat32(clusters * (each + 1), each);
      EXPECT_GE(g.fat_bytes(), (uint64_t{g.clusters} + 2) * 4);
      EXPECT_LE(g.cluster_offset(g.clusters + 2), g.disk_bytes());
    }
  }
  EXPECT_THROW(Geometry::fat32(65536, 1), Error);
  EXPECT_THROW(Geometry::fat32(uint64_t{1} << 32, 64), Error);
}

TEST(VvfatLayout, DatesAreClamped) {
  EXPECT_EQ(DosTime::from_local(0).date, 1 << 5 | 1);
  EXPECT_EQ(DosTime::from_local(INT64_MAX).date, 127 << 9 | 12 << 5 | 31);
  const DosTime leap = DosTime::from_local(951827696);  // 2000-02-29 12:34:56
  EXPECT_EQ(leap.date, 20 << 9 | 2 << 5 | 29);
  EXPECT_EQ(leap.time, 12 << 11 | 34 << 5 | 28);
}

TEST(VvfatLayout, DatesGoThereAndBack) {
  for (int64_t moment = 315532800; moment < 4354819198; moment += 7777778)
    EXPECT_EQ(DosTime::from_local(moment).to_local(), moment / 2 * 2);
  // What is no date is still some moment.
  EXPECT_EQ((DosTime{.date = 0, .time = 0xffff}.to_local()), 315532800 + 86400 - 2);
}

TEST(VvfatLayout, EntriesGoThereAndBack) {
  std::array<std::byte, kSlotBytes> slot{};
  DirectoryEntry entry;
  entry.name = {'A', ' ', ' ', ' ', ' ', ' ', ' ', ' ', 'T', 'X', 'T'};
  entry.attributes = attribute::kArchive;
  entry.case_flags = DirectoryEntry::kLowerBase;
  entry.written = {.date = 3, .time = 4};
  entry.cluster = 0x12345;
  entry.bytes = 7;
  entry.encode(slot);
  const DirectoryEntry back = DirectoryEntry::decode(slot);
  EXPECT_EQ(back.name, entry.name);
  EXPECT_EQ(back.case_flags, entry.case_flags);
  EXPECT_EQ(back.written, entry.written);
  EXPECT_EQ(back.cluster, entry.cluster);
  EXPECT_EQ(back.bytes, entry.bytes);
  LongNameSlot part;
  part.sequence = 0x41;
  part.units.fill(u'x');
  part.encode(slot);
  EXPECT_EQ(LongNameSlot::decode(slot).units, part.units);
  EXPECT_EQ(LongNameSlot::decode(slot).sequence, 0x41);
}

TEST(VvfatNames, WhatIsShownBecomesTheHostsNameAgain) {
  for (const char* name :
       {"plain", "a:b*c?", "dot.", "space ", "tab\there", "\xf0\x9f\x98\x80", "日本語.txt"})
    EXPECT_EQ(host_name(shown_name(name).value()), name);
  for (const std::u16string_view wrong :
       {u"", u".", u"..", u"a/b", u"a:b", u"a\\b", u"a\u0001", u"\xd800", u"x\xdc00y"})
    EXPECT_FALSE(host_name(wrong).has_value());
  EXPECT_FALSE(host_name(std::u16string(256, u'a')).has_value());
  EXPECT_FALSE(host_name(std::u16string(200, u'ä')).has_value());
}

TEST(VvfatNames, ShortNamesKeepTheCaseThatIsMarked) {
  const ShortName name{'R', 'E', 'A', 'D', ' ', ' ', ' ', ' ', 'T', 'X', 'T'};
  EXPECT_EQ(short_text(name, 0), u"READ.TXT");
  EXPECT_EQ(short_text(name, DirectoryEntry::kLowerBase), u"read.TXT");
  EXPECT_EQ(short_text(name, 0x18), u"read.txt");
}

TEST(VvfatNames, NumberedNamesAreDistinct) {
  ShortNames names;
  const MangledName mangled = mangle("a long file name.text");
  for (int i = 0; i < 20000; ++i) EXPECT_TRUE(!names.take(names.take_numbered(mangled)));
}

TEST(VvfatNames, ForbiddenCharactersAreSubstituted) {
  EXPECT_EQ(shown_name("a:b."), u"a\uf022b\uf029");
  EXPECT_EQ(shown_name("\xf0\x9f\x98\x80"), u"\U0001f600");
  EXPECT_FALSE(shown_name("\xed\xa0\x80").has_value());
  EXPECT_EQ(folded(u"äA"), folded(u"Äa"));
}

// Reading a table in pieces of any size gives the same bytes.
TEST(VvfatImage, TablesAreReadFromAnywhere) {
  for (const FatType type : {FatType::k12, FatType::k16}) {
    Tree tree;
    tree.entries.resize(3);
    tree.entries[0].kind = Entry::Kind::kFolder;
    tree.entries[0].first_child = 1;
    tree.entries[0].children = 2;
    tree.entries[1].stamp.bytes = 100000;
    tree.entries[2].stamp.bytes = 8193;
    const Image image(Geometry::disk(type), tree, "folder", {}, [](std::string_view) {});
    const uint64_t begin = image.geometry().fat_offset();
    std::vector<std::byte> whole(image.geometry().data_offset());
    image.read_front(0, whole);
    for (size_t offset = begin; offset < begin + 60; ++offset) {
      std::vector<std::byte> part(offset % 7 + 1);
      image.read_front(offset, part);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + offset));
    }
    EXPECT_EQ(tree.entries[2].first_cluster, 15u);
  }
}

}  // namespace
}  // namespace cairn::vvfat
