#include <algorithm>
#include <chrono>

#include "block/capabilities/backing_link.h"
#include "block/graph/graph.h"
#include "block/graph/reopen.h"
#include "job/live/backup.h"
#include "job/live/commit.h"
#include "job/live/jobs.h"
#include "job/live/mirror.h"
#include "job/live/stream.h"
#include "support.h"

namespace cairn::live {
namespace {

using testing_support::Folder;
using testing_support::random_bytes;
using testing_support::World;

constexpr uint64_t kSize = 8 << 20;
constexpr uint64_t kPiece = 65536;

// A chain base ← mid ← top of which each layer has parts of its own, with a user of the top that
// writes while jobs work; and a copy of what the user has to see.
class Chain {
 public:
  Chain() : jobs(world.context, [this](const JobEvent& event) { note(event); }) {
    std::string below;
    for (const std::string name : {"base", "mid", "top"}) {
      const std::string file = folder.file(name);
      world.create(file, "qcow2", kSize,
                   below.empty() ? "" : "backing_file=" + below + ",backing_fmt=qcow2");
      NodePtr node = world.open(file, "qcow2", true);
      for (int i = 0; i < 40; ++i) change(*node, (random_() % (kSize / kPiece)) * kPiece, kPiece);
      world.close(node);
      below = file;
    }
    add("qcow2", "top", below);
  }
  ~Chain() { world.run(end()); }

  void add(const std::string& driver, const std::string& name, const std::string& file,
           const std::string& more = {}) {
    world.run(add_node(Options::parse_list("driver=" + driver + ",node-name=" + name +
                                           ",file.driver=file,file.filename=" + file + more)));
  }
  NodePtr make_target(const std::string& driver = "qcow2") {
    const std::string file = folder.file("target");
    world.create(file, driver, kSize);
    add(driver, "target", file);
    return graph.get("target");
  }
  void attach() { world.run(attach_user()); }
  NodePtr node(const std::string& name) { return graph.get(name); }
  NodePtr layer(unsigned depth) {
    Node* at = graph.get("top").get();
    for (; depth > 0; --depth) at = at->backing();
    return at->shared_from_this();
  }

  // Writes something through the user, at many places.
  void write_some(int count) {
    for (int i = 0; i < count; ++i) {
      const uint64_t offset = random_() % (kSize - 5000);
      change(*user, offset, 1 + random_() % 5000);
    }
  }
  void start(std::shared_ptr<DiskJob> job) { world.run(start_job(std::move(job))); }
  void start_paused(std::shared_ptr<DiskJob> job) {
    const auto begin = [&]() -> Task<void> {
      const auto lock = co_await graph.change();
      co_await launch_prepare(jobs, job, nullptr);
    };
    world.run(begin());
    job->pause();
    jobs.start(job);
  }
  bool wait_for(const std::function<bool()>& done) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done()) {
      if (std::chrono::steady_clock::now() > limit) return false;
      world.run(sleep_for(std::chrono::milliseconds(1)));
    }
    return true;
  }
  bool ended() {
    return wait_for([this] { return jobs.list().empty(); });
  }
  bool ready(const std::string& id) {
    return wait_for([this, id] { return jobs.get(id)->info().status == JobStatus::kReady; });
  }
  std::string failure() const { return failure_; }
  bool shows(Node& node, const std::vector<std::byte>& wanted) {
    std::vector<std::byte> bytes(kSize);
    world.run(node.read(0, bytes));
    return bytes == wanted;
  }
  bool file_shows(const std::string& name, const std::string& driver = "qcow2") {
    NodePtr node = world.open(folder.file(name), driver, false);
    const bool equal = shows(*node, content);
    world.close(node);
    return equal;
  }
  // Everything is closed: files have what was written.
  void finish() {
    world.run(end());
    ended_ = true;
  }

  Folder folder;
  World world;
  Graph graph{world.context};
  Jobs jobs;
  RootPtr user;
  std::vector<std::byte> content = std::vector<std::byte>(kSize);

 private:
  void change(Node& node, uint64_t offset, uint64_t length) {
    const std::vector<std::byte> bytes = random_bytes(random_, length);
    world.run(node.write(offset, bytes));
    std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(offset));
  }
  Task<void> add_node(Options options) {
    const auto lock = co_await graph.change();
    co_await graph.add(std::move(options));
  }
  Task<void> attach_user() {
    const auto lock = co_await graph.change();
    NodeUse use;
    use.takes = Permissions::kConsistentRead | Permissions::kWrite;
    user = co_await graph.attach(graph.get("top"), std::move(use));
  }
  Task<void> start_job(std::shared_ptr<DiskJob> job) {
    const auto lock = co_await graph.change();
    co_await launch(jobs, std::move(job));
  }
  Task<void> end() {
    if (ended_) co_return;
    co_await jobs.shutdown();
    const auto lock = co_await graph.change();
    if (user) co_await graph.detach(user);
    user = nullptr;
    co_await graph.close();
  }
  void note(const JobEvent& event) {
    if (event.kind == JobEvent::Kind::kCompleted && event.error) failure_ = *event.error;
  }

  std::mt19937_64 random_{20260101};
  std::string failure_;
  bool ended_ = false;
};

JobOptions slowly(const std::string& id) { return {.id = id, .speed = 4 << 20}; }

TEST(StreamJob, CopiesTheChainUnderItsUser) {
  for (const bool whole : {true, false}) {
    Chain chain;
    chain.attach();
    StreamRequest request;
    request.device = chain.node("top");
    if (!whole) request.base = chain.layer(2);
    chain.start(std::make_shared<StreamJob>(slowly("s"), chain.graph, std::move(request)));
    chain.write_some(50);
    chain.jobs.get("s")->set_speed(0);
    ASSERT_TRUE(chain.ended());
    EXPECT_EQ(chain.failure(), "");
    EXPECT_TRUE(chain.shows(*chain.user, chain.content));
    EXPECT_EQ(chain.node("top")->backing() == nullptr, whole);
    chain.write_some(20);
    chain.finish();
    EXPECT_TRUE(chain.file_shows("top"));
    NodePtr top = chain.world.open(chain.folder.file("top"), "qcow2", false);
    EXPECT_EQ(backing_name_of(*top), whole ? "" : chain.folder.file("base"));
    chain.world.close(top);
  }
}

TEST(CommitJob, TakesALayerOutOfTheMiddle) {
  Chain chain;
  chain.attach();
  const auto begin = [&]() -> Task<void> {
    const auto lock = co_await chain.graph.change();
    CommitRequest request;
    NodePtr base = chain.layer(2);
    request.base = co_await reopen_as(chain.graph, base, true);
    request.top = chain.layer(1);
    request.base_was_read_only = true;
    JobOptions options;
    options.id = "c";
    auto job = std::make_shared<CommitJob>(std::move(options), chain.graph, std::move(request));
    co_await launch(chain.jobs, std::move(job));
  };
  chain.world.run(begin());
  chain.write_some(50);
  ASSERT_TRUE(chain.ended());
  EXPECT_EQ(chain.failure(), "");
  EXPECT_TRUE(chain.shows(*chain.user, chain.content));
  EXPECT_EQ(chain.layer(1)->backing(), nullptr);
  EXPECT_TRUE(chain.layer(1)->read_only());
  chain.finish();
  EXPECT_TRUE(chain.file_shows("top"));
}

TEST(MirrorJob, MovesTheUserToTheTarget) {
  for (const bool blocking : {false, true}) {
    Chain chain;
    chain.attach();
    const std::string driver = blocking ? "raw" : "qcow2";
    MirrorRequest request;
    request.source = chain.node("top");
    request.target = chain.make_target(driver);
    request.write_blocking = blocking;
    chain.start(std::make_shared<MirrorJob>(JobType::kMirror, slowly("m"), chain.graph,
                                            std::move(request)));
    chain.write_some(50);
    chain.jobs.get("m")->set_speed(0);
    ASSERT_TRUE(chain.ready("m"));
    chain.write_some(50);
    chain.jobs.get("m")->complete();
    chain.write_some(20);
    ASSERT_TRUE(chain.ended());
    EXPECT_EQ(chain.failure(), "");
    EXPECT_EQ(chain.user->node()->node_name(), "target");
    chain.write_some(20);
    EXPECT_TRUE(chain.shows(*chain.user, chain.content));
    EXPECT_TRUE(chain.node("top")->bitmaps().list().empty());
    chain.finish();
    EXPECT_TRUE(chain.file_shows("target", driver));
  }
}

TEST(MirrorJob, LeavesACopyWhenItIsCancelled) {
  Chain chain;
  chain.attach();
  MirrorRequest request;
  request.source = chain.node("top");
  request.target = chain.make_target();
  chain.start(std::make_shared<MirrorJob>(JobType::kMirror, JobOptions{.id = "m"}, chain.graph,
                                          std::move(request)));
  ASSERT_TRUE(chain.ready("m"));
  chain.write_some(50);
  chain.world.run(chain.jobs.get("m")->cancel(false));
  ASSERT_TRUE(chain.ended());
  EXPECT_EQ(chain.user->node()->node_name(), "top");
  EXPECT_TRUE(chain.shows(*chain.node("target"), chain.content));
  EXPECT_TRUE(chain.graph.parents(*chain.node("top")).empty());
}

TEST(MirrorJob, CommitsTheActiveLayer) {
  Chain chain;
  chain.attach();
  const auto begin = [&]() -> Task<void> {
    const auto lock = co_await chain.graph.change();
    MirrorRequest request;
    NodePtr base = chain.layer(2);
    request.target = co_await reopen_as(chain.graph, base, true);
    request.source = chain.node("top");
    request.target_was_read_only = true;
    JobOptions options;
    options.id = "c";
    auto job = std::make_shared<MirrorJob>(JobType::kCommit, std::move(options), chain.graph,
                                           std::move(request));
    co_await launch(chain.jobs, std::move(job));
  };
  chain.world.run(begin());
  chain.write_some(50);
  ASSERT_TRUE(chain.ready("c"));
  chain.write_some(50);
  chain.jobs.get("c")->complete();
  ASSERT_TRUE(chain.ended());
  EXPECT_EQ(chain.failure(), "");
  chain.write_some(20);
  EXPECT_TRUE(chain.shows(*chain.user, chain.content));
  chain.finish();
  EXPECT_TRUE(chain.file_shows("base"));
}

TEST(BackupJob, KeepsTheMomentOfItsBegin) {
  for (const BackupSync sync : {BackupSync::kFull, BackupSync::kNone}) {
    Chain chain;
    chain.attach();
    const std::vector<std::byte> before = chain.content;
    BackupRequest request;
    request.source = chain.node("top");
    request.target = chain.make_target("raw");
    request.sync = sync;
    chain.start(std::make_shared<BackupJob>(slowly("b"), chain.graph, std::move(request)));
    chain.write_some(100);
    if (sync == BackupSync::kNone) {
      chain.world.run(chain.jobs.get("b")->cancel(true));
      ASSERT_TRUE(chain.ended());
      EXPECT_EQ(chain.failure(), "");
      continue;
    }
    chain.jobs.get("b")->set_speed(0);
    ASSERT_TRUE(chain.ended());
    EXPECT_EQ(chain.failure(), "");
    EXPECT_TRUE(chain.shows(*chain.node("target"), before));
    EXPECT_TRUE(chain.shows(*chain.user, chain.content));
  }
}

TEST(BackupJob, LeavesTheBitmapAsItsModeSays) {
  struct Case {
    BitmapMode mode;
    bool cancelled;
    uint64_t marked;  // pieces
  };
  // Piece 1 was changed before the job, and piece 9 during it.
  for (const Case& one : {Case{BitmapMode::kOnSuccess, false, 1},
                          {BitmapMode::kNever, false, 2},
                          {BitmapMode::kAlways, false, 1},
                          {BitmapMode::kOnSuccess, true, 2},
                          {BitmapMode::kAlways, true, 2}}) {
    Chain chain;
    chain.attach();
    const auto bitmap = std::make_shared<DirtyBitmap>("bm", kSize, kPiece);
    chain.node("top")->bitmaps().add(bitmap);
    bitmap->mark(kPiece, kPiece);
    BackupRequest request;
    request.source = chain.node("top");
    request.target = chain.make_target("raw");
    request.sync = BackupSync::kBitmap;
    request.bitmap = bitmap;
    request.bitmap_mode = one.mode;
    const auto job = std::make_shared<BackupJob>(JobOptions{.id = "b", .auto_finalize = false},
                                                 chain.graph, std::move(request));
    chain.start_paused(job);
    EXPECT_TRUE(bitmap->busy());
    const std::vector<std::byte> bytes(100);
    chain.world.run(chain.user->write(9 * kPiece, bytes));
    if (one.cancelled) {
      chain.world.run(job->cancel(true));
    } else {
      job->resume();
      ASSERT_TRUE(chain.wait_for([&] { return job->info().status == JobStatus::kPending; }));
      chain.world.run(job->finalize());
    }
    ASSERT_TRUE(chain.ended());
    EXPECT_EQ(bitmap->dirty_bytes(), one.marked * kPiece);
    EXPECT_EQ(bitmap->run_at(9 * kPiece, kPiece).dirty, true);
    EXPECT_FALSE(bitmap->busy());
    EXPECT_EQ(chain.node("top")->bitmaps().list().size(), 1U);
  }
}

}  // namespace
}  // namespace cairn::live
