// Every format on storage that takes blocks of 4 KiB only, as direct I/O on disks with such sectors
// does, with disks and files that end elsewhere.
#include <cstring>

#include "async/async.h"
#include "block/capabilities/checkable.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

struct AlignedLayout {
  std::string name;
  std::string format;
  std::string options;
  std::string open_options = {};
  uint64_t around = UINT64_MAX;  // bytes of the file besides the disk, where that is fixed
};

constexpr uint64_t kBlock = 4096;

class AlignedStorage : public testing::TestWithParam<AlignedLayout> {
 protected:
  AlignedStorage() { world_.add_secret("s0", "passphrase"); }

  // Direct I/O where the file system has it, and in any case a filter that takes whole blocks.
  NodePtr open_aligned() {
    const AlignedLayout& layout = GetParam();
    OpenRequest disk;
    disk.image_opts = true;
    std::string text = "driver=" + layout.format +
                       ",file.driver=blkdebug,file.align=4096,file.image.driver=file" +
                       ",file.image.cache.direct=on,file.image.filename=" + path_;
    if (!layout.open_options.empty()) text += "," + layout.open_options;
    disk.options = Options::parse_list(text);
    disk.flags.writable = true;
    disk.flags.resize = true;
    disk.flags.discard_unmap = true;
    return world_.run(open_node(world_.context, std::move(disk)));
  }

  void expect_equal(Node& node, const std::vector<std::byte>& model) {
    ASSERT_EQ(node.length(), model.size());
    std::vector<std::byte> content(model.size());
    world_.run(node.read(0, content));
    for (size_t at = 0; at < content.size(); ++at)
      ASSERT_EQ(content[at], model[at]) << "at byte " << at;
  }

  World world_;
  Folder folder_;
  std::string path_;
};

TEST_P(AlignedStorage, TheFileEndsWhereTheFormatSays) {
  const AlignedLayout& layout = GetParam();
  path_ = folder_.file("disk");
  std::mt19937_64 random(4096);
  std::vector<std::byte> model((5 << 20) + 3 * 512);
  world_.create(path_, layout.format, model.size(), layout.options);
  NodePtr node = open_aligned();
  ASSERT_EQ(node->file()->limits().request_alignment, kBlock);
  world_.run(node->read(0, model));
  for (int step = 0; step < 120; ++step) {
    const uint64_t length = 1 + random() % (step % 10 == 0 ? 300'000 : 9'000);
    const bool at_end = step % 3 == 0;
    const uint64_t offset = at_end ? model.size() - length : random() % (model.size() - length);
    if (step % 7 == 6) {
      world_.run(node->write_zeroes(offset, length, {.may_unmap = step % 2 == 0}));
      std::memset(model.data() + offset, 0, length);
    } else {
      const auto bytes = random_bytes(random, length);
      world_.run(node->write(offset, bytes));
      std::memcpy(model.data() + offset, bytes.data(), length);
    }
    if (step % 40 != 39) continue;
    world_.close(node);
    node = open_aligned();
  }
  expect_equal(*node, model);
  world_.close(node);

  if (layout.around != UINT64_MAX) {
    EXPECT_EQ(std::filesystem::file_size(path_), model.size() + layout.around);
  }
  node = world_.open(path_, layout.format, false, layout.open_options);
  expect_equal(*node, model);
  if (node->driver().offers<Checkable>()) {
    const CheckResult result = world_.run(check_image(*node, {}));
    EXPECT_EQ(result.corruptions, 0u);
  }
  world_.close(node);
}

std::vector<AlignedLayout> aligned_layouts() {
  return {{"raw", "raw", "", "", 0},
          {"qcow2_512", "qcow2", "cluster_size=512"},
          {"qcow2", "qcow2", ""},
          {"qcow2_extended", "qcow2", "extended_l2=on"},
          {"qcow2_encrypted", "qcow2",
           "cluster_size=4k,encrypt.key-secret=s0,encrypt.format=luks,encrypt.iter-time=0",
           "encrypt.key-secret=s0"},
          {"luks", "luks", "key-secret=s0,iter-time=0", "key-secret=s0"},
          {"parallels", "parallels", "cluster_size=512", "prealloc-size=64k"},
          {"qcow", "qcow", ""},
          {"qed", "qed", ""},
          {"vdi", "vdi", ""},
          {"vdi_static", "vdi", "static=on"},
          {"vhdx", "vhdx", "block_size=1M"},
          {"vpc", "vpc", "force_size=on"},
          {"vpc_fixed", "vpc", "force_size=on,subformat=fixed", "", 512},
          {"vmdk", "vmdk", ""}};
}

INSTANTIATE_TEST_SUITE_P(Formats, AlignedStorage, testing::ValuesIn(aligned_layouts()),
                         [](const auto& chosen) { return chosen.param.name; });

}  // namespace
}  // namespace cairn
