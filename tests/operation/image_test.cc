// What changes or describes one image: describe, map, resize, snapshots, bitmaps, amend, check.
#include "operation/amend.h"
#include "operation/bitmap.h"
#include "operation/check.h"
#include "operation/create.h"
#include "operation/describe.h"
#include "operation/map.h"
#include "operation/resize.h"
#include "operation/snapshot.h"
#include "operation_support.h"

namespace cairn {
namespace {

using namespace testing_support;

class Image : public ::testing::Test {
 protected:
  Image() { world_.create(name_, "qcow2", kImageBytes); }

  Folder folder_;
  World world_;
  Asking asking_{world_};
  std::string name_ = folder_.file("disk.qcow2");
};

TEST_F(Image, IsDescribedWithItsChain) {
  const std::string top = folder_.file("top.qcow2");
  world_.create(top, "qcow2", kImageBytes, "backing_file=" + name_ + ",backing_fmt=qcow2");
  const auto all = operation::describe_images(asking_.caller, image(top), true, false);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(operation::text_of(all[0], "format"), "qcow2");
  EXPECT_EQ(operation::text_of(all[0], "full-backing-filename"), name_);
  EXPECT_EQ(operation::number_of(all[1], "virtual-size"), kImageBytes);
  EXPECT_EQ(operation::describe_images(asking_.caller, image(top), false, false).size(), 1u);
}

TEST_F(Image, AChainWithoutEndIsRefused) {
  const std::string top = folder_.file("top.qcow2");
  world_.create(top, "qcow2", kImageBytes, "backing_file=" + name_ + ",backing_fmt=qcow2");
  std::filesystem::copy_file(top, name_, std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(error_of([&] { operation::describe_images(asking_.caller, image(top), true, false); }),
            "Backing file '" + name_ + "' creates an infinite loop.");
}

TEST_F(Image, MapJoinsNeighbours) {
  fill(world_, name_, "qcow2", 65536, 3 * 65536, 1);
  std::vector<operation::MapPiece> pieces;
  operation::MapOptions options;
  options.found = [&](const operation::MapPiece& piece) { pieces.push_back(piece); };
  world_.run(operation::map(asking_.caller, image(name_), std::move(options)));
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[1].start, 65536u);
  EXPECT_EQ(pieces[1].extent.length, 3 * 65536u);
  EXPECT_TRUE(pieces[1].extent.data);
  EXPECT_EQ(asking_.last_done, kImageBytes);
}

TEST_F(Image, ShrinksOnlyWhenAllowed) {
  using From = operation::ResizeOptions::From;
  operation::ResizeOptions options{.from = From::kLargerBy, .bytes = 1 << 20};
  auto done = world_.run(operation::resize(world_.context, image(name_), options));
  EXPECT_EQ(done.before, kImageBytes);
  EXPECT_EQ(done.after, kImageBytes + (1 << 20));
  options.from = From::kSmallerBy;
  done = world_.run(operation::resize(world_.context, image(name_), options));
  EXPECT_TRUE(done.must_shrink);
  EXPECT_EQ(done.after, kImageBytes + (1 << 20));
  options.shrink = true;
  done = world_.run(operation::resize(world_.context, image(name_), options));
  EXPECT_FALSE(done.must_shrink);
  EXPECT_EQ(done.after, kImageBytes);
  EXPECT_EQ(world_.run(operation::size_of_disk(world_.context, image(name_))), kImageBytes);
}

TEST_F(Image, SnapshotsAreMadeAndApplied) {
  using Action = operation::SnapshotAction;
  const auto act = [&](Action action, const std::string& what) {
    return world_.run(operation::act_on_snapshots(world_.context, image(name_), action, what));
  };
  fill(world_, name_, "qcow2", 0, 512, 1);
  act(Action::kCreate, "before");
  fill(world_, name_, "qcow2", 0, 512, 2);
  const Value list = act(Action::kList, "");
  ASSERT_EQ(list.get_if<Value::Array>()->size(), 1u);
  act(Action::kApply, "before");
  EXPECT_EQ(content(world_, name_, "qcow2", 0, 1)[0], std::byte{1});
  EXPECT_EQ(error_of([&] { act(Action::kDelete, "other"); }).find("Could not delete snapshot"), 0u);
}

TEST_F(Image, BitmapsAreChangedInOrder) {
  using Kind = operation::BitmapAction::Kind;
  operation::BitmapOptions options;
  options.image = image(name_);
  options.image.flags.writable = true;
  options.name = "b";
  options.actions = {{.kind = Kind::kAdd}, {.kind = Kind::kDisable}};
  world_.run(operation::change_bitmaps(asking_.caller, options));
  const Value list = world_.run(operation::read_bitmaps(world_.context, image(name_), name_));
  ASSERT_EQ(list.get_if<Value::Array>()->size(), 1u);
  const Value& bitmap = list.get_if<Value::Array>()->front();
  EXPECT_EQ(operation::text_of(bitmap, "name"), "b");
  EXPECT_FALSE(*bitmap.find("enabled")->get_if<bool>());
  EXPECT_EQ(error_of([&] {
              world_.run(operation::change_bitmaps(asking_.caller, options));
            }).find("Operation add on bitmap b failed"),
            0u);
}

TEST_F(Image, AmendKeepsBitmapsOfAGuardedCaller) {
  operation::BitmapOptions bitmap;
  bitmap.image = image(name_);
  bitmap.image.flags.writable = true;
  bitmap.name = "b";
  bitmap.actions = {{.kind = operation::BitmapAction::Kind::kAdd}};
  world_.run(operation::change_bitmaps(asking_.caller, bitmap));
  AmendRequest changes;
  changes.options.set("compat", "0.10");
  changes.progress = [](uint64_t, uint64_t) {};
  EXPECT_NE(error_of([&] { world_.run(operation::amend(asking_.caller, image(name_), changes)); }),
            "");
  asking_.caller.guarded = false;
  EXPECT_EQ(world_.run(operation::amend(asking_.caller, image(name_), changes)), "qcow2");
  EXPECT_EQ(asking_.warnings.size(), 1u);
}

TEST_F(Image, CheckSaysWhatAFormatCannot) {
  auto outcome = world_.run(operation::check(asking_.caller, image(name_), {}));
  EXPECT_FALSE(outcome.unsupported);
  EXPECT_EQ(outcome.format, "qcow2");
  EXPECT_EQ(outcome.result.check_errors, 0u);
  const std::string raw = folder_.file("disk.raw");
  world_.create(raw, "raw", kImageBytes);
  EXPECT_TRUE(world_.run(operation::check(asking_.caller, image(raw, "raw"), {})).unsupported);
  const std::string vdi = folder_.file("disk.vdi");
  world_.create(vdi, "vdi", kImageBytes);
  const operation::CheckOptions repair{.repair = CheckRequest::Repair::kAll};
  EXPECT_FALSE(world_.run(operation::check(asking_.caller, image(vdi, "vdi"), repair)).unsupported);
  world_.context.profile.extensions = false;
  EXPECT_TRUE(world_.run(operation::check(asking_.caller, image(vdi, "vdi"), repair)).unsupported);
}

}  // namespace
}  // namespace cairn
