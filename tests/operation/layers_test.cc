// What works on several images: commit, rebase, compact, compare.
#include "operation/commit.h"
#include "operation/compact.h"
#include "operation/compare.h"
#include "operation/rebase.h"
#include "operation_support.h"

namespace cairn {
namespace {

using namespace testing_support;

class Layers : public ::testing::Test {
 protected:
  Layers() {
    world_.create(base_, "qcow2", kImageBytes);
    fill(world_, base_, "qcow2", 0, 65536, 1);
    world_.create(top_, "qcow2", kImageBytes, "backing_file=" + base_ + ",backing_fmt=qcow2");
    fill(world_, top_, "qcow2", 1 << 20, 65536, 2);
  }
  bool equal(const std::string& a, const std::string& b) {
    const auto result =
        world_.run(operation::compare(asking_.caller, image(a), image(b), CompareOptions{}, true));
    return result.kind == CompareResult::Kind::kIdentical;
  }

  Folder folder_;
  World world_;
  Asking asking_{world_};
  std::string base_ = folder_.file("base.qcow2");
  std::string top_ = folder_.file("top.qcow2");
};

TEST_F(Layers, CommitWritesIntoTheBase) {
  EXPECT_FALSE(equal(base_, top_));
  operation::CommitOptions options;
  options.top = image(top_, "qcow2");
  options.name = top_;
  EXPECT_EQ(world_.run(operation::commit(asking_.caller, options)), base_);
  EXPECT_EQ(content(world_, base_, "qcow2", 1 << 20, 1)[0], std::byte{2});
  EXPECT_TRUE(equal(base_, top_));
  options.base = folder_.file("other.qcow2");
  EXPECT_EQ(error_of([&] { world_.run(operation::commit(asking_.caller, options)); }),
            "Did not find '" + *options.base + "' in the backing chain of '" + top_ + "'");
}

TEST_F(Layers, RebaseKeepsTheContent) {
  const std::string copy = folder_.file("copy.qcow2");
  std::filesystem::copy_file(top_, copy);
  operation::RebaseOptions options;
  options.overlay = image(top_, "qcow2");
  world_.run(operation::rebase(asking_.caller, options));
  EXPECT_TRUE(equal(copy, top_));
  EXPECT_EQ(content(world_, top_, "qcow2", 0, 1)[0], std::byte{1});
}

TEST_F(Layers, CompactKeepsAnImageThatIsSmallAlready) {
  operation::CompactOptions options;
  options.source = image(base_, "qcow2");
  options.name = base_;
  const auto first = world_.run(operation::compact(asking_.caller, options));
  const auto again = world_.run(operation::compact(asking_.caller, options));
  EXPECT_LE(first.after, first.before);
  EXPECT_TRUE(again.kept);
  EXPECT_EQ(content(world_, base_, "qcow2", 0, 1)[0], std::byte{1});
  Options given;
  given.set("backing_file", "x");
  EXPECT_EQ(error_of([&] { operation::check_compact_options(given); }),
            "Option 'backing_file' cannot be changed by compact");
}

TEST_F(Layers, CompactToANewFileRemovesItWhenItFails) {
  operation::CompactOptions options;
  options.source = image(base_, "qcow2");
  options.name = base_;
  options.target = folder_.file("new.qcow2");
  asking_.cancel.request();
  EXPECT_NE(error_of([&] { world_.run(operation::compact(asking_.caller, options)); }), "");
  EXPECT_FALSE(exists(options.target));
}

}  // namespace
}  // namespace cairn
