// Nodes that are opened again, get overlays, bitmaps and other sizes while somebody uses them.
#include "block/graph/active.h"
#include "block/graph/bitmaps.h"
#include "block/graph/disk.h"
#include "block/graph/reopen.h"
#include "block/graph/snapshots.h"
#include "graph_fixture.h"

namespace cairn {
namespace {

using namespace testing_support;

class ChangeTest : public GraphTest {
 protected:
  void reopen(const std::vector<std::string>& sets) {
    Reopener reopener(graph_);
    for (const std::string& set : sets) reopener.add(Options::parse_list(set));
    world_.run(reopener.run());
  }
  std::string reopen_error(const std::vector<std::string>& sets) {
    return error_of([&] { reopen(sets); });
  }
  void run(std::unique_ptr<GraphAction> action) {
    world_.run(run_action(graph_, std::move(action)));
  }
  template <class... Actions>
  std::string transaction_error(Actions... actions) {
    GraphActions all;
    (all.push_back(std::move(actions)), ...);
    return error_of([&] { world_.run(run_transaction(graph_, std::move(all))); });
  }
  void fill(Node& node, uint64_t offset, int byte) {
    world_.run(node.write(offset, std::vector<std::byte>(65536, std::byte(byte))));
  }
  int byte_at(Node& node, uint64_t offset) {
    std::vector<std::byte> one(1);
    world_.run(node.read(offset, one));
    return static_cast<int>(one[0]);
  }
};

TEST_F(ChangeTest, AReopenedNodeKeepsUsersAndContent) {
  add_qcow2("q");
  const RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  fill(*user, 0, 1);
  reopen({"driver=qcow2,node-name=q,file=q-f,discard=unmap,cache.no-flush=on"});
  EXPECT_EQ(byte_at(*user, 0), 1);
  EXPECT_EQ(user->node(), graph_.get("q"));
  EXPECT_EQ(reopen_error({"driver=qcow2,node-name=q,file=q-f,read-only=on"}),
            "Read-only block node 'q' cannot support read-write users");
  world_.run(graph_.change_use(user, kRead, Permissions::kAll));
  reopen({"driver=qcow2,node-name=q,file=q-f,read-only=on"});
  EXPECT_TRUE(graph_.get("q")->read_only());
  EXPECT_TRUE(graph_.get("q-f")->read_only());
  EXPECT_EQ(byte_at(*user, 0), 1);
  reopen({"driver=qcow2,node-name=q,file=q-f"});
  world_.run(graph_.change_use(user, kRead | kWrite, Permissions::kAll));
  fill(*user, 0, 2);
  EXPECT_EQ(byte_at(*user, 0), 2);
}

TEST_F(ChangeTest, ReopeningIsAllOrNothing) {
  add_qcow2("q");
  add_raw("r");
  const RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  fill(*user, 0, 1);
  EXPECT_NE(reopen_error({"driver=raw,node-name=r,file=r-f,read-only=on",
                          "driver=qcow2,node-name=q,file=q-f,no-such-option=1"}),
            "");
  EXPECT_FALSE(graph_.get("r")->read_only());
  EXPECT_EQ(byte_at(*user, 0), 1);
  fill(*user, 0, 3);
  EXPECT_EQ(byte_at(*user, 0), 3);
  EXPECT_EQ(names(), (Names{"r", "r-f", "q", "q-f"}));
}

TEST_F(ChangeTest, ReopeningRefuses) {
  add_qcow2("q");
  EXPECT_EQ(reopen_error({"driver=qcow2,file=q-f"}), "node-name not specified");
  EXPECT_EQ(reopen_error({"driver=raw,node-name=q,file=q-f"}), "Cannot change the option 'driver'");
  EXPECT_EQ(reopen_error({"driver=qcow2,node-name=q,file.driver=file"}),
            "Option 'filename' cannot be reset to its default value");
  EXPECT_EQ(reopen_error({"driver=qcow2,node-name=q,file.driver=file,file.filename=other"}),
            "Cannot change the option 'filename'");
  EXPECT_EQ(reopen_error({"driver=file,node-name=q-f,filename=other"}),
            "Cannot change the option 'filename'");
  EXPECT_EQ(reopen_error({"driver=qcow2,node-name=q,file=q"}),
            "Making 'q' a file child of 'q' would create a cycle");
  EXPECT_EQ(reopen_error({"driver=qcow2,node-name=q,file=nope"}),
            "Cannot find device='' nor node-name='nope'");
}

TEST_F(ChangeTest, ReopeningExchangesTheBackingFile) {
  add_raw("one");
  add_raw("two");
  fill(*graph_.get("two"), 0, 9);
  add_qcow2("q");
  const RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  reopen({"driver=qcow2,node-name=q,file=q-f,backing=one"});
  EXPECT_EQ(byte_at(*user, 0), 0);
  reopen({"driver=qcow2,node-name=q,file=q-f,backing=two"});
  EXPECT_EQ(byte_at(*user, 0), 9);
  EXPECT_EQ(names(), (Names{"q", "q-f", "two", "two-f", "one", "one-f"}));
}

TEST_F(ChangeTest, BitmapsOutliveAReopening) {
  add_qcow2("q");
  const RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  run(bitmap_add_action(graph_, "q", {.name = "kept", .persistent = true}));
  run(bitmap_add_action(graph_, "q", {.name = "passing"}));
  const DirtyBitmapPtr kept = find_bitmap(graph_, {"q", "kept"});
  fill(*user, 0, 1);
  reopen({"driver=qcow2,node-name=q,file=q-f,discard=unmap"});
  fill(*user, 1 << 20, 1);
  EXPECT_EQ(find_bitmap(graph_, {"q", "kept"}), kept);
  EXPECT_EQ(kept->dirty_bytes(), 2 * 65536u);
  EXPECT_EQ(find_bitmap(graph_, {"q", "passing"})->dirty_bytes(), 2 * 65536u);
}

TEST_F(ChangeTest, ASnapshotTakesTheUsersAlong) {
  add_qcow2("base");
  add_qcow2("over");
  const RootPtr user = attach(graph_.get("base"), kRead | kWrite);
  fill(*user, 0, 1);
  run(snapshot_action(graph_, "base", "over"));
  EXPECT_EQ(user->node(), graph_.get("over"));
  EXPECT_TRUE(graph_.get("base")->read_only());
  fill(*user, 0, 2);
  EXPECT_EQ(byte_at(*user, 0), 2);
  EXPECT_EQ(byte_at(*graph_.get("base"), 0), 1);
  const auto refused = [&](const std::string& node, const std::string& overlay) {
    return error_of([&] { run(snapshot_action(graph_, node, overlay)); });
  };
  EXPECT_EQ(refused("base", "over"), "Node 'base' is busy: node is used as backing hd of 'over'");
  add_raw("raw");
  EXPECT_EQ(refused("over", "raw"), "The overlay does not support backing images");
  EXPECT_EQ(refused("raw", "over"), "The overlay is already in use");
}

TEST_F(ChangeTest, AFailedTransactionLeavesNothing) {
  add_qcow2("base");
  add_qcow2("over");
  const RootPtr user = attach(graph_.get("base"), kRead | kWrite);
  run(bitmap_add_action(graph_, "base", {.name = "b"}));
  fill(*user, 0, 1);
  EXPECT_EQ(transaction_error(bitmap_clear_action(graph_, {"base", "b"}),
                              bitmap_enable_action(graph_, {"base", "b"}, false),
                              snapshot_action(graph_, "base", "over"),
                              bitmap_add_action(graph_, "over", {.name = "c"}),
                              bitmap_remove_action(graph_, {"base", "nope"})),
            "Dirty bitmap 'nope' not found");
  EXPECT_EQ(user->node(), graph_.get("base"));
  EXPECT_EQ(graph_.get("over")->backing(), nullptr);
  const DirtyBitmapPtr bitmap = find_bitmap(graph_, {"base", "b"});
  EXPECT_EQ(bitmap->dirty_bytes(), 65536u);
  EXPECT_TRUE(bitmap->enabled());
  EXPECT_EQ(graph_.get("over")->bitmaps().find("c"), nullptr);
}

TEST_F(ChangeTest, ASnapshotAndItsBitmapInOneTransaction) {
  add_qcow2("base");
  add_qcow2("over");
  const RootPtr user = attach(graph_.get("base"), kRead | kWrite);
  EXPECT_EQ(transaction_error(snapshot_action(graph_, "base", "over"),
                              bitmap_add_action(graph_, "over", {.name = "b"})),
            "");
  fill(*user, 0, 1);
  EXPECT_EQ(find_bitmap(graph_, {"over", "b"})->dirty_bytes(), 65536u);
}

TEST_F(ChangeTest, ASnapshotInAFileGoesWithItsUsers) {
  add_qcow2("base");
  RootPtr user = attach(graph_.get("base"), kRead | kWrite);
  run(snapshot_file_action(graph_,
                           {.node = "base", .file = folder_.file("snap"), .overlay = "snap"}));
  fill(*user, 0, 2);
  EXPECT_EQ(byte_at(*user, 0), 2);
  EXPECT_EQ(names().size(), 4u);
  EXPECT_EQ(error_of([&] { world_.run(graph_.remove("snap")); }), "Node snap is in use");
  world_.run(graph_.detach(std::move(user)));
  EXPECT_EQ(names(), (Names{"base", "base-f"}));
}

TEST_F(ChangeTest, MergesAllOrNothing) {
  add_qcow2("q");
  const RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  for (const char* name : {"a", "b", "sum"})
    run(bitmap_add_action(graph_, "q", {.name = name, .granularity = 4096}));
  fill(*user, 0, 1);
  run(bitmap_clear_action(graph_, {"q", "sum"}));
  EXPECT_EQ(error_of([&] {
              run(bitmap_merge_action(graph_, {"q", "sum"}, {{"q", "a"}, {"q", "nope"}}));
            }),
            "Dirty bitmap 'nope' not found");
  EXPECT_EQ(find_bitmap(graph_, {"q", "sum"})->dirty_bytes(), 0u);
  run(bitmap_merge_action(graph_, {"q", "sum"}, {{"q", "a"}, {"q", "sum"}}));
  EXPECT_EQ(find_bitmap(graph_, {"q", "sum"})->dirty_bytes(), 65536u);
  run(bitmap_merge_action(graph_, {"q", "sum"}, {}));
  find_bitmap(graph_, {"q", "a"})->set_busy(true);
  EXPECT_EQ(error_of([&] {
              run(bitmap_merge_action(graph_, {"q", "sum"}, {{"q", "a"}}));
            }),
            "Bitmap 'a' is currently in use by another operation and cannot be used");
  find_bitmap(graph_, {"q", "a"})->set_busy(false);
}

TEST_F(ChangeTest, ResizesWhatNobodyReliesOn) {
  add_qcow2("q");
  RootPtr user = attach(graph_.get("q"), kRead, Permissions::kAll & ~Permissions::kResize);
  EXPECT_NE(error_of([&] { world_.run(resize_node(graph_, "q", 8 << 20)); }), "");
  world_.run(graph_.detach(std::move(user)));
  bool seen = false;
  NodeUse use;
  use.resized = [&] { seen = true; };
  user = world_.run(graph_.attach(graph_.get("q"), std::move(use)));
  world_.run(resize_node(graph_, "q", 8 << 20));
  EXPECT_TRUE(seen);
  EXPECT_EQ(user->length(), 8u << 20);
  EXPECT_EQ(error_of([&] { world_.run(resize_node(graph_, "q", -1)); }),
            "Parameter 'size' expects a >0 size");
}

TEST_F(ChangeTest, AnInactiveNodeLeavesTheImageToOthers) {
  add_qcow2("q");
  RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  fill(*user, 0, 1);
  EXPECT_EQ(error_of([&] { world_.run(set_active(graph_, "q", false)); }),
            "Failed to inactivate node: Operation not permitted");
  EXPECT_EQ(error_of([&] { world_.run(set_active(graph_, "q-f", false)); }),
            "Node has active parent node");
  world_.run(graph_.detach(std::move(user)));
  world_.run(set_active(graph_, "q", false));
  NodePtr other = world_.open(folder_.file("q"), "qcow2", true);
  EXPECT_EQ(byte_at(*other, 0), 1);
  fill(*other, 0, 2);
  EXPECT_NE(error_of([&] { world_.run(set_active(graph_, "q", true)); }), "");
  world_.close(other);
  world_.run(set_active(graph_, "", true));
  EXPECT_FALSE(graph_.get("q")->read_only());
  user = attach(graph_.get("q"), kRead | kWrite);
  EXPECT_EQ(byte_at(*user, 0), 2);
}

TEST_F(ChangeTest, DisksOfAQuorumComeAndGo) {
  for (const char* name : {"a", "b", "c"}) add_raw(name);
  add("driver=quorum,node-name=q,vote-threshold=2,children.0=a,children.1=b");
  const auto change = [&](const std::string& child, const std::string& node) {
    return error_of([&] { world_.run(change_disks(graph_, "q", child, node)); });
  };
  EXPECT_EQ(change("children.0", ""),
            "The number of children cannot be lower than the vote threshold 2");
  EXPECT_EQ(change("", "a"), "The node a already has a parent");
  EXPECT_EQ(change("children.7", ""), "Node 'q' does not have child 'children.7'");
  EXPECT_EQ(change("", ""), "Either child or node must be specified");
  EXPECT_EQ(change("", "c"), "");
  const RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  EXPECT_EQ(change("children.0", ""), "");
  fill(*user, 0, 5);
  EXPECT_EQ(byte_at(*user, 0), 5);
  EXPECT_EQ(byte_at(*graph_.get("c"), 0), 5);
  EXPECT_EQ(byte_at(*graph_.get("a"), 0), 0);
  EXPECT_EQ(change("", "a"), "");
  EXPECT_NE(graph_.get("q")->child("children.3"), nullptr);
}

TEST_F(ChangeTest, AThresholdFiresOnce) {
  add_qcow2("q");
  const RootPtr user = attach(graph_.get("q"), kRead | kWrite);
  std::vector<uint64_t> fired;
  DirtyBitmaps& file = graph_.get("q-f")->bitmaps();
  file.set_threshold(1 << 20, [&](uint64_t excess) { fired.push_back(excess); });
  fill(*user, 0, 1);
  EXPECT_EQ(fired.size(), 0u);
  for (uint64_t at = 0; at < kDisk; at += 65536) fill(*user, at, 1);
  EXPECT_EQ(fired.size(), 1u);
  EXPECT_EQ(file.threshold(), 0u);
}

}  // namespace
}  // namespace cairn
