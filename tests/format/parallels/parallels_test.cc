// The pure types of Parallels: what a header and a descriptor may say.
#include "format/parallels/bundle.h"
#include "format/parallels/layout.h"
#include "support.h"

namespace cairn::parallels {
namespace {

using namespace testing_support;

TEST(ParallelsHeader, IsWhatWasEncoded) {
  Header header = Header::fresh(10 << 20, kDefaultClusterBytes);
  header.in_use = kInUse;
  header.flags = 5;
  header.ext_off = 12345;
  std::vector<std::byte> bytes(kHeaderBytes);
  for (const bool extended : {true, false}) {
    header.extended = extended;
    header.encode(bytes);
    const Header again = Header::decode(bytes, 1 << 20);
    std::vector<std::byte> copy(kHeaderBytes);
    again.encode(copy);
    EXPECT_EQ(bytes, copy);
    EXPECT_EQ(again.size(), 10u << 20);
    EXPECT_EQ(again.unit(), extended ? kDefaultClusterBytes : kSector);
  }
}

TEST(ParallelsHeader, SaysWhereTheDataBegins) {
  Header header = Header::fresh(10 << 20, kDefaultClusterBytes);
  EXPECT_EQ(header.data_begin(1 << 20), 1u << 20);
  EXPECT_EQ(header.data_begin(1000), std::nullopt) << "past the end of the file";
  header.data_off = 2049;
  EXPECT_EQ(header.data_begin(4 << 20), std::nullopt) << "within a cluster";
  header.extended = false;
  EXPECT_EQ(header.data_begin(4 << 20), 2049u * 512);
  header.data_off = 0;
  EXPECT_EQ(header.data_begin(4 << 20), 512u);
}

TEST(ParallelsHeader, OldKindHasASizeOf32Bits) {
  Header header = Header::fresh(10 << 20, kDefaultClusterBytes);
  header.extended = false;
  header.sectors |= uint64_t{7} << 32;
  EXPECT_EQ(header.size(), 10u << 20);
}

TEST(ParallelsDescriptor, FollowsParents) {
  const std::string a = "{11111111-0000-0000-0000-000000000000}";
  const std::string b = "{22222222-0000-0000-0000-000000000000}";
  const auto image = [](const std::string& id) {
    return "<Image><GUID>" + id + "</GUID><Type>Compressed</Type><File>" + id + "</File></Image>";
  };
  const std::string text =
      "<Parallels_disk_image Version='1.0'><Disk_Parameters><Disk_size>8</Disk_size>"
      "</Disk_Parameters><StorageData><Storage><Start>0</Start><End>8</End><Blocksize>8</"
      "Blocksize>" +
      image(a) + image(b) + "</Storage></StorageData><Snapshots><TopGUID>" + b +
      "</TopGUID><Shot><GUID>" + b + "</GUID><ParentGUID>" + a +
      "</ParentGUID></Shot><Shot><GUID>" + a +
      "</GUID><ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot>"
      "</Snapshots></Parallels_disk_image>";
  ASSERT_TRUE(looks_like_descriptor(text));
  const BundleDescriptor bundle = BundleDescriptor::parse(text);
  const auto chain = bundle.chain(bundle.top, bundle.parts.front());
  ASSERT_EQ(chain.size(), 2u);
  EXPECT_EQ(chain[0].file, a);
  EXPECT_EQ(chain[1].file, b);
  for (size_t cut = 0; cut < text.size(); cut += 7)
    EXPECT_THROW(BundleDescriptor::parse(text.substr(0, cut)), Error) << cut;
}

}  // namespace
}  // namespace cairn::parallels
