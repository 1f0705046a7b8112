// Nodes with names: who may use what, and what happens to requests while the graph changes.

#include "async/task_group.h"
#include "graph_fixture.h"

namespace cairn {
namespace {

using namespace testing_support;

TEST_F(GraphTest, NamesItsNodesNewestFirst) {
  add_raw("a");
  add_raw("b");
  EXPECT_EQ(names(), (Names{"b", "b-f", "a", "a-f"}));
  EXPECT_EQ(error_of([&] { add_raw("a"); }), "Duplicate nodes with node-name='a'");
  EXPECT_EQ(error_of([&] { add_raw("1a"); }), "Invalid node-name: '1a'");
  EXPECT_EQ(error_of([&] { add_raw(std::string(32, 'a')); }), "Node name too long");
  EXPECT_EQ(error_of([&] { add("driver=null-co"); }),
            "'node-name' must be specified for the root node");
  EXPECT_EQ(error_of([&] { add("driver=raw,node-name=c,file=nope"); }),
            "Cannot find device='nope' nor node-name='nope'");
  EXPECT_EQ(names(), (Names{"b", "b-f", "a", "a-f"}));
}

TEST_F(GraphTest, TakesBackWhatAFailedOpeningOpened) {
  world_.create(folder_.file("x"), "raw", kDisk);
  const std::string file = ",file.driver=file,file.node-name=f,file.filename=" + folder_.file("x");
  EXPECT_NE(error_of([&] { add("driver=qcow2,node-name=q" + file); }), "");
  EXPECT_EQ(error_of([&] { add("driver=raw,node-name=f" + file); }),
            "Duplicate nodes with node-name='f'");
  EXPECT_EQ(names(), Names{});
  add("driver=raw,node-name=q" + file);
}

TEST_F(GraphTest, RemovesWhatNobodyUses) {
  add_raw("a");
  const auto removing = [&](const std::string& name) {
    return error_of([&] { world_.run(graph_.remove(name)); });
  };
  EXPECT_EQ(removing("nope"), "Failed to find node with node-name='nope'");
  EXPECT_EQ(removing("a-f"), "Node a-f is not owned by the monitor");
  add("driver=raw,node-name=over,file=a");
  EXPECT_EQ(removing("a"), "Block device a is in use");
  RootPtr user = attach(graph_.get("over"), kRead);
  EXPECT_EQ(removing("over"), "Node over is in use");
  world_.run(graph_.detach(std::move(user)));
  EXPECT_EQ(removing("over"), "");
  EXPECT_EQ(names(), (Names{"a", "a-f"}));
  EXPECT_EQ(removing("a"), "");
  EXPECT_EQ(names(), Names{});
}

TEST_F(GraphTest, ANamedChildOutlivesItsParentWhereAnotherUsesIt) {
  add_raw("a");
  add("driver=raw,node-name=b,file=a-f");
  world_.run(graph_.remove("a"));
  EXPECT_EQ(names(), (Names{"b", "a-f"}));
  world_.run(graph_.remove("b"));
  EXPECT_EQ(names(), Names{});
}

TEST_F(GraphTest, RefusesUsersThatExcludeEachOther) {
  add_raw("a");
  const RootPtr writer = attach(graph_.get("a"), kRead | kWrite, Permissions::kAll & ~kWrite);
  EXPECT_EQ(error_of([&] { attach(graph_.get("a"), kWrite); }),
            "Permission conflict on node 'a': permissions 'write' are both required by an unnamed "
            "block device (uses node 'a' as 'root' child) and unshared by an unnamed block device "
            "(uses node 'a' as 'root' child).");
  attach(graph_.get("a"), kRead);
  world_.create(folder_.file("ro"), "raw", kDisk);
  const NodePtr fixed = add("driver=raw,node-name=ro,read-only=on,file.driver=file,file.filename=" +
                            folder_.file("ro"));
  EXPECT_TRUE(fixed->read_only());
  EXPECT_EQ(error_of([&] { attach(fixed, kWrite); }), "Block node is read-only");
}

TEST_F(GraphTest, AFormatKeepsItsFileToItself) {
  add_qcow2("q");
  const std::string message = error_of([&] { attach(graph_.get("q-f"), kWrite); });
  EXPECT_EQ(message,
            "Permission conflict on node 'q-f': permissions 'write' are both required by an "
            "unnamed block device (uses node 'q-f' as 'root' child) and unshared by node 'q' (uses "
            "node 'q-f' as 'file' child).");
}

TEST_F(GraphTest, LocksFollowTheUsers) {
  add_raw("a");
  // Nobody writes to A yet, so that another program may.
  NodePtr other = world_.open(folder_.file("a"), "raw", true);
  world_.close(other);
  const RootPtr user = attach(graph_.get("a"), kRead | kWrite, Permissions::kAll & ~kWrite);
  EXPECT_NE(error_of([&] { other = world_.open(folder_.file("a"), "raw", true); }), "");
  world_.run(graph_.detach(user));
  other = world_.open(folder_.file("a"), "raw", true);
  world_.close(other);
}

TEST_F(GraphTest, AnOverlayGetsItsBackingFileAndLosesIt) {
  const NodePtr base = add_raw("base");
  const NodePtr top = add_qcow2("top");
  std::vector<std::byte> data(65536, std::byte{7});
  world_.run(base->write(0, data));
  const RootPtr user = attach(top, kRead | kWrite);
  std::vector<std::byte> seen(65536);
  world_.run(graph_.set_backing(top, base));
  world_.run(user->read(0, seen));
  EXPECT_EQ(seen, data);
  const Extent extent = world_.run(user->extent_at(0, kDisk));
  EXPECT_EQ(extent.depth, 1u);
  graph_.freeze(*top, nullptr);
  EXPECT_EQ(error_of([&] { world_.run(graph_.set_backing(top, nullptr)); }),
            "Cannot change frozen 'backing' link from 'top' to 'base'");
  graph_.thaw(*top, nullptr);
  EXPECT_EQ(error_of([&] { world_.run(graph_.set_backing(base, top)); }),
            "Making 'top' a backing child of 'base' would create a cycle");
  world_.run(graph_.set_backing(top, nullptr));
  world_.run(user->read(0, seen));
  EXPECT_EQ(seen, std::vector<std::byte>(65536));
}

// Writes and reads its own part of the disk until COUNT rounds are done.
Task<void> hammer(Root& root, uint64_t begin, uint64_t length, unsigned seed, unsigned count) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> model(length);
  for (unsigned i = 0; i < count; ++i) {
    const uint64_t at = random() % (length - 8192);
    const std::vector<std::byte> bytes = random_bytes(random, 1 + random() % 8192);
    co_await root.write(begin + at, bytes);
    std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<ptrdiff_t>(at));
    std::vector<std::byte> seen(8192);
    const uint64_t where = random() % (length - 8192);
    co_await root.read(begin + where, seen);
    const bool same =
        std::equal(seen.begin(), seen.end(), model.begin() + static_cast<ptrdiff_t>(where));
    EXPECT_TRUE(same) << "round " << i;
  }
  std::vector<std::byte> all(length);
  co_await root.read(begin, all);
  EXPECT_EQ(all, model);
}

// Moves all users of ONE and OTHER between the two until DONE.
Task<void> move_about(Graph& graph, NodePtr one, NodePtr other, std::atomic<int>& left,
                      unsigned* moves) {
  while (left.load() != 0) {
    const auto change = co_await graph.change();
    co_await graph.replace(one, other);
    std::swap(one, other);
    ++*moves;
  }
}

TEST_F(GraphTest, NoRequestIsLostWhileUsersMove) {
  add_raw("a");
  const NodePtr one = add("driver=raw,node-name=one,file=a-f");
  const NodePtr other = add("driver=raw,node-name=other,file=a-f");
  const RootPtr user = attach(one, kRead | kWrite);
  unsigned moves = 0;
  const auto all = [&]() -> Task<void> {
    std::atomic<int> left{4};
    const auto part = [&](unsigned i) -> Task<void> {
      co_await hammer(*user, i * (kDisk / 4), kDisk / 4, i, 200);
      --left;
    };
    TaskGroup group;
    for (unsigned i = 0; i < 4; ++i)
      group.spawn_on(world_.context.runtime().worker(i % 2), part(i));
    group.spawn(move_about(graph_, one, other, left, &moves));
    co_await group.join();
  };
  world_.run(all());
  EXPECT_GT(moves, 1u);
}

TEST_F(GraphTest, AChangeDoesNotWaitForAThrottle) {
  Options limits;
  limits.set("id", "slow");
  limits.set("limits.iops-total", "1");
  world_.context.add_object("throttle-group", std::move(limits));
  add_raw("a");
  add_raw("b");
  const NodePtr slow = add("driver=throttle,node-name=slow,throttle-group=slow,file=a");
  const RootPtr user = attach(slow, kRead);
  const auto all = [&]() -> Task<void> {
    std::vector<std::vector<std::byte>> buffers(1000, std::vector<std::byte>(512));
    TaskGroup group;
    for (std::vector<std::byte>& buffer : buffers)
      group.spawn_on(world_.context.runtime().worker(0), user->read(0, buffer));
    co_await graph_.replace(graph_.get("a"), graph_.get("b"));
    // What came too late would wait for minutes.
    graph_.hurry(true);
    co_await group.join();
    graph_.hurry(false);
  };
  world_.run(all());
  EXPECT_EQ(slow->file(), graph_.get("b").get());
}

}  // namespace
}  // namespace cairn
