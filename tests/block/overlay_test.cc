#include "block/overlay.h"

#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

class OverlayTest : public testing::TestWithParam<const char*> {};

TEST_P(OverlayTest, ChangesVanishAndTheImageStaysAsItWas) {
  Folder folder;
  World world;
  const std::string name = folder.file("disk");
  world.create(name, GetParam(), 1 << 20);
  std::vector<std::byte> old(4096, std::byte{7});
  NodePtr node = world.open(name, GetParam(), true);
  world.run(node->write(65536, old));
  world.close(node);

  OpenRequest request;
  request.filename = name;
  request.format = GetParam();
  request.flags.writable = true;
  node = world.run(open_with_snapshot_overlay(world.context, request));
  EXPECT_EQ(node->length(), 1u << 20);
  const std::vector<std::byte> fresh(1000, std::byte{9});
  world.run(node->write(65536 + 100, fresh));
  world.run(node->write_zeroes(0, 512));
  ResizeRequest larger;
  larger.length = 2 << 20;
  world.run(node->resize(larger));
  std::vector<std::byte> seen(4096);
  world.run(node->read(65536, seen));
  std::vector<std::byte> expected = old;
  std::copy(fresh.begin(), fresh.end(), expected.begin() + 100);
  EXPECT_EQ(seen, expected);
  world.close(node);

  node = world.open(name, GetParam(), false);
  EXPECT_EQ(node->length(), 1u << 20);
  world.run(node->read(65536, seen));
  EXPECT_EQ(seen, old);
  world.close(node);
}

INSTANTIATE_TEST_SUITE_P(Formats, OverlayTest, testing::Values("raw", "qcow2"));

TEST(Overlay, LeavesNoNameBehindAndSaysWhereItFailed) {
  Folder folder;
  World world;
  const std::string name = folder.file("disk");
  world.create(name, "raw", 1 << 20);
  const std::string temporary = folder.file("tmp");
  std::filesystem::create_directory(temporary);
  OpenRequest request;
  request.filename = name;
  request.format = "raw";
  world.context.temporary_directory = temporary;
  NodePtr node = world.run(open_with_snapshot_overlay(world.context, request));
  EXPECT_TRUE(std::filesystem::is_empty(temporary));
  world.close(node);
  world.context.temporary_directory = folder.file("missing");
  EXPECT_EQ(error_of([&] { world.run(open_with_snapshot_overlay(world.context, request)); }),
            "Could not make a temporary overlay in '" + folder.file("missing") +
                "': No such file or directory");
  // The image is not locked any more.
  node = world.open(name, "raw", true);
  world.close(node);
}

}  // namespace
}  // namespace cairn
