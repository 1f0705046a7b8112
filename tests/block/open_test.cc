// Opening in every spelling, probing, references, and what the request layer does for drivers.
#include "block/open.h"

#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

class Opening : public testing::Test {
 protected:
  NodePtr open(OpenRequest request) {
    return world_.run(open_node(world_.context, std::move(request)));
  }
  std::string refusal(OpenRequest request) {
    return error_of([&] { open(std::move(request)); });
  }
  OpenRequest named(const std::string& name) {
    OpenRequest request;
    request.filename = name;
    return request;
  }
  OpenRequest options(const std::string& text) {
    OpenRequest request;
    request.options = Options::parse_list(text, "file");
    request.image_opts = true;
    request.display = text;
    return request;
  }
  World world_;
  Folder folder_;
};

TEST_F(Opening, AllSpellingsReachTheSameDisk) {
  const std::string path = folder_.file("a.qcow2");
  world_.create(path, "qcow2", 1 << 20);
  const std::string json =
      "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"" + path + "\"}}";
  const std::string dotted = "json:{'driver':'qcow2','file.filename':'" + path + "'}";
  for (OpenRequest request : {named(path), named("file:" + path), named(json), named(dotted),
                              options("driver=qcow2,file.driver=file,file.filename=" + path),
                              options("file.filename=" + path)}) {
    NodePtr node = open(request);
    EXPECT_EQ(node->driver().name(), "qcow2");
    EXPECT_EQ(node->length(), 1u << 20);
    EXPECT_EQ(node->filename(), path);
    world_.close(node);
  }
}

TEST_F(Opening, UnknownThingsAreNamed) {
  const std::string path = folder_.file("a.raw");
  world_.create(path, "raw", 4096);
  EXPECT_NE(refusal(named("nonsense:x")).find("Unknown protocol 'nonsense'"), std::string::npos);
  EXPECT_NE(
      refusal(options("driver=nonsense,file.filename=" + path)).find("Unknown driver 'nonsense'"),
      std::string::npos);
  EXPECT_NE(refusal(options("driver=raw,speed=9,file.filename=" + path))
                .find("Block format 'raw' does not support the option 'speed'"),
            std::string::npos);
  EXPECT_NE(refusal(options("driver=raw,file.speed=9,file.driver=file,file.filename=" + path))
                .find("Block protocol 'file' doesn't support the option 'speed'"),
            std::string::npos);
  EXPECT_NE(refusal(options(path)).find("Cannot find device='" + path + "'"), std::string::npos);
  EXPECT_NE(refusal(options("driver=raw")).find("A block device must be specified for \"file\""),
            std::string::npos);
  EXPECT_NE(refusal(options("driver=raw,node-name=1x,file.filename=" + path))
                .find("Invalid node-name: '1x'"),
            std::string::npos);
}

TEST_F(Opening, EmptyAndShortFilesAreRaw) {
  for (const size_t size : {0u, 1u, 511u, 2000u}) {
    const std::string path = folder_.file("short");
    std::ofstream(path) << std::string(size, 'x');
    NodePtr node = open(named(path));
    EXPECT_EQ(node->driver().name(), "raw");
    EXPECT_EQ(node->length(), (size + 511) / 512 * 512);
    std::vector<std::byte> content(node->length());
    world_.run(node->read(0, content));
    for (size_t at = 0; at < content.size(); ++at)
      EXPECT_EQ(content[at], at < size ? std::byte{'x'} : std::byte{0});
    world_.close(node);
  }
}

TEST_F(Opening, GuessedRawCannotBecomeAnotherFormat) {
  const std::string path = folder_.file("guest");
  std::ofstream(path) << std::string(1 << 16, '\0');
  OpenRequest request = named(path);
  request.flags.writable = true;
  NodePtr node = open(request);
  std::vector<std::byte> header(512);
  store_be<uint32_t>(header, 0, 0x514649fb);
  store_be<uint32_t>(header, 4, 3);
  EXPECT_THROW(world_.run(node->write(0, header)), Error);
  std::fill(header.begin(), header.end(), std::byte{1});
  world_.run(node->write(0, header));
  world_.close(node);
  NodePtr told = world_.open(path, "raw", true);
  store_be<uint32_t>(header, 0, 0x514649fb);
  store_be<uint32_t>(header, 4, 3);
  world_.run(told->write(0, header));
  world_.close(told);
}

TEST_F(Opening, ReferencesPassTheGate) {
  const std::string base = folder_.file("base.raw");
  const std::string top = folder_.file("top.qcow2");
  world_.create(base, "raw", 1 << 20);
  CreateOptions request;
  request.filename = top;
  request.format = "qcow2";
  request.options = Options::parse_list("backing_file=base.raw,backing_fmt=raw");
  world_.run(create_image(world_.context, std::move(request)));
  NodePtr node = open(named(top));
  ASSERT_NE(node->backing(), nullptr);
  world_.close(node);
  OpenRequest denied = named(top);
  denied.flags.references.mode = ReferencePolicy::Mode::kDeny;
  EXPECT_NE(refusal(denied).find("base.raw"), std::string::npos);
  OpenRequest confined = named(top);
  confined.flags.references.mode = ReferencePolicy::Mode::kConfine;
  confined.flags.references.directory = std::filesystem::path(base).parent_path();
  node = open(confined);
  world_.close(node);
  confined.flags.references.directory = "/usr";
  EXPECT_NE(refusal(confined), "");
  NodePtr alone = open(options("driver=qcow2,file.filename=" + top + ",backing="));
  EXPECT_EQ(alone->backing(), nullptr);
  world_.close(alone);
  node = open(named("json:{'driver':'qcow2','file.filename':'" + top + "','backing':null}"));
  EXPECT_EQ(node->backing(), nullptr);
  world_.close(node);
}

TEST_F(Opening, WindowsOfRawFiles) {
  const std::string path = folder_.file("whole");
  std::ofstream(path) << std::string(4096, 'a') << std::string(4096, 'b') << std::string(4096, 'c');
  NodePtr node =
      open(options("driver=raw,offset=4096,size=4096,file.driver=file,file.filename=" + path));
  EXPECT_EQ(node->length(), 4096u);
  std::vector<std::byte> content(4096);
  world_.run(node->read(0, content));
  EXPECT_EQ(content.front(), std::byte{'b'});
  EXPECT_EQ(content.back(), std::byte{'b'});
  EXPECT_THROW(world_.run(node->read(1, content)), Error);
  world_.close(node);
  EXPECT_NE(refusal(options("driver=raw,offset=99999,file.filename=" + path)), "");
}

TEST_F(Opening, DirectRequestsMayHaveAnyAlignment) {
  const std::string path = folder_.file("direct");
  world_.create(path, "raw", 1 << 20);
  OpenRequest request = named(path);
  request.format = "raw";
  request.flags.writable = true;
  request.flags.cache.direct = true;
  NodePtr node = open(request);
  std::mt19937_64 random(3);
  std::vector<std::byte> model(1 << 20);
  for (int i = 0; i < 60; ++i) {
    const uint64_t length = 1 + random() % 30'000;
    const uint64_t offset = random() % (model.size() - length);
    const auto bytes = random_bytes(random, length);
    world_.run(node->write(offset, bytes));
    std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<ptrdiff_t>(offset));
  }
  std::vector<std::byte> content(model.size() - 2);
  world_.run(node->read(1, content));
  EXPECT_TRUE(std::equal(content.begin(), content.end(), model.begin() + 1));
  world_.close(node);
}

TEST_F(Opening, ZeroesAreDetectedWhenAsked) {
  const std::string path = folder_.file("z.qcow2");
  world_.create(path, "qcow2", 1 << 20);
  OpenRequest request = options("driver=qcow2,detect-zeroes=on,file.filename=" + path);
  request.flags.writable = true;
  NodePtr node = open(request);
  const std::vector<std::byte> zeroes(1 << 20);
  world_.run(node->write(0, zeroes));
  const Extent extent = world_.run(node->extent_at(0, 1 << 20));
  EXPECT_TRUE(extent.zero);
  EXPECT_FALSE(extent.data);
  world_.close(node);
  EXPECT_NE(
      refusal(options("driver=qcow2,detect-zeroes=unmap,discard=ignore,file.filename=" + path)),
      "");
}

TEST_F(Opening, CreationLeavesNothingBehindWhenItFails) {
  const std::string path = folder_.file("never");
  CreateOptions request;
  request.filename = path;
  request.format = "qcow2";
  request.size = 1 << 20;
  request.options = Options::parse_list("cluster_size=1000");
  EXPECT_THROW(world_.run(create_image(world_.context, std::move(request))), Error);
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace cairn
