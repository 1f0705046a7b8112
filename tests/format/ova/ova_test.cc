// Appliances: the order in which they are written, and what their descriptors and archives may say.
#include <cstring>

#include "crash/replay.h"
#include "filter/record/record.h"
#include "format/ova/envelope.h"
#include "format/ova/tar.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

TEST(Ova, IsWrittenFromStartToEnd) {
  World world;
  const Folder folder;
  const std::string path = folder.file("box.ova");
  world.create(path, "ova", 4 << 20);
  OpenRequest request;
  request.options = Options::parse_list(
      "driver=ova,file.driver=record,file.file.driver=file,file.file.filename=" + path);
  request.image_opts = true;
  request.flags.writable = true;
  const std::vector<std::byte> start = load_file(path);
  NodePtr node = world.run(open_node(world.context, std::move(request)));
  auto* recorder = dynamic_cast<RecordNode*>(node->file());
  ASSERT_NE(recorder, nullptr);
  std::mt19937_64 random(1);
  const auto bytes = random_bytes(random, 3 << 20);
  // The order of the disk does not matter.
  for (const uint64_t at : {uint64_t{1} << 20, uint64_t{0}})
    world.run(node->write(at, ByteSpan(bytes).first(1 << 20)));
  world.run(node->close());
  std::vector<std::byte> content(4 << 20);
  const auto whole = [&] {
    return std::memcmp(content.data(), bytes.data(), 1 << 20) == 0 &&
           std::memcmp(content.data() + (1 << 20), bytes.data(), 1 << 20) == 0 &&
           is_zero(ByteSpan(content).subspan(2 << 20));
  };
  // Whenever the power goes, the appliance is empty, whole, or refused.
  const std::vector<RecordedEvent> events = recorder->events();
  for (size_t count = 0; count <= events.size(); ++count) {
    const std::string torn = folder.file("torn.ova");
    const std::vector<std::byte> left = replay(start, events, count, nullptr);
    std::ofstream(torn, std::ios::binary)
        .write(reinterpret_cast<const char*>(left.data()),
               static_cast<std::streamsize>(left.size()));
    error_of([&] {
      NodePtr again = world.open(torn, "ova", false);
      world.run(again->read(0, content));
      EXPECT_TRUE(whole() || is_zero(content)) << count;
      world.close(again);
    });
  }
  uint64_t end = 0;
  size_t writes = 0;
  for (const RecordedEvent& event : events) {
    if (event.kind == RecordedEvent::Kind::kResize) {
      EXPECT_EQ(event.offset, 0u);
    }
    if (event.kind != RecordedEvent::Kind::kWrite) continue;
    EXPECT_EQ(event.offset, end);
    end = event.offset + event.bytes.size();
    ++writes;
  }
  EXPECT_GT(writes, 6u);
  node.reset();
  node = world.open(path, "", false);
  world.run(node->read(0, content));
  EXPECT_TRUE(whole());
  world.close(node);
}

TEST(Ova, DescriptorsOfOtherMakers) {
  const ova::Envelope envelope = ova::Envelope::parse(
      "<e:Envelope xmlns:e='x' xmlns:v='y'><e:References><e:File v:id='f' v:href='a%20b.vmdk'/>"
      "<e:File v:id='z' v:href='z.gz' v:compression='gzip'/></e:References>"
      "<e:DiskSection><e:Disk v:diskId='one' v:fileRef='f' v:capacity='3' "
      "v:capacityAllocationUnits='byte * 2^30'/><e:Disk v:diskId='two' v:fileRef='z' "
      "v:capacity='${size}'/><e:Disk v:diskId='three' v:capacity='5'/></e:DiskSection>"
      "<e:VirtualSystemCollection><e:VirtualSystem v:id='m'><e:Name>m&amp;n</e:Name>"
      "</e:VirtualSystem></e:VirtualSystemCollection></e:Envelope>");
  ASSERT_EQ(envelope.disks.size(), 3u);
  EXPECT_EQ(envelope.name, "m&n");
  EXPECT_EQ(envelope.disks[0].file, "a b.vmdk");
  EXPECT_EQ(envelope.disks[0].capacity, uint64_t{3} << 30);
  EXPECT_TRUE(envelope.disks[1].gzip);
  EXPECT_FALSE(envelope.disks[1].capacity);
  EXPECT_EQ(envelope.disks[2].capacity, 5u);
  const ova::Envelope old = ova::Envelope::parse(
      "<Envelope><References><File id='f' href='d.vmdk'/></References>"
      "<Section xsi:type='ovf:DiskSection_Type'><Disk diskId='d' "
      "fileRef='f'/></Section></Envelope>");
  ASSERT_EQ(old.disks.size(), 1u);
  EXPECT_EQ(old.disks[0].file, "d.vmdk");
  EXPECT_NE(error_of([] { ova::Envelope::parse("<Envelope>"); }), "");
  EXPECT_NE(error_of([] { ova::Envelope::parse("<other/>"); }), "");
  // Entities that a document declares stay what they are.
  const std::string bomb =
      "<!DOCTYPE e [<!ENTITY a 'aaaa'>]><Envelope><VirtualSystem><Name>&a;"
      "</Name></VirtualSystem></Envelope>";
  EXPECT_EQ(ova::Envelope::parse(bomb).name, "&a;");
}

TEST(Ova, HeadersOfArchives) {
  std::vector<std::byte> block(ova::kTarBlock);
  for (const uint64_t bytes : {uint64_t{0}, (uint64_t{1} << 33) - 1, uint64_t{1} << 40}) {
    ova::TarHeader header;
    header.name = "disk.vmdk";
    header.bytes = bytes;
    header.encode(block, 1700000000);
    const auto read = ova::TarHeader::decode(block);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->name, "disk.vmdk");
    EXPECT_EQ(read->bytes, bytes);
  }
  block[124] = std::byte{0xff};
  EXPECT_NE(error_of([&] { ova::TarHeader::decode(block); }), "");
}

TEST(Ova, Manifests) {
  const auto lines = ova::parse_manifest("SHA256(a (1).ovf)= AB12\r\n\nSHA1 (b) = 00\n");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].file, "a (1).ovf");
  EXPECT_EQ(lines[0].digest, "ab12");
  EXPECT_EQ(lines[1].algorithm, "sha1");
  EXPECT_NE(error_of([] { ova::parse_manifest("nonsense"); }), "");
}

}  // namespace
}  // namespace cairn
