#include "job/live/jobs.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "support.h"

namespace cairn::live {
namespace {

using testing_support::error_of;
using testing_support::World;

constexpr JobStatus kAll[] = {JobStatus::kUndefined, JobStatus::kCreated, JobStatus::kRunning,
                              JobStatus::kPaused,    JobStatus::kReady,   JobStatus::kStandby,
                              JobStatus::kWaiting,   JobStatus::kPending, JobStatus::kAborting,
                              JobStatus::kConcluded, JobStatus::kNull};

std::string accepted(JobVerb verb) {
  std::string text;
  for (const JobStatus status : kAll)
    if (accepts(status, verb))
      text += std::string(text.empty() ? "" : " ") + std::string(to_string(status));
  return text;
}

TEST(JobStatus, VerbsAreAcceptedInTheirStates) {
  const std::string under_way = "created running paused ready standby";
  EXPECT_EQ(accepted(JobVerb::kCancel), under_way + " waiting pending");
  for (const JobVerb verb :
       {JobVerb::kPause, JobVerb::kResume, JobVerb::kSetSpeed, JobVerb::kChange})
    EXPECT_EQ(accepted(verb), under_way);
  EXPECT_EQ(accepted(JobVerb::kComplete), "ready standby");
  EXPECT_EQ(accepted(JobVerb::kFinalize), "pending");
  EXPECT_EQ(accepted(JobVerb::kDismiss), "concluded");
}

TEST(JobStatus, FollowsTheTable) {
  std::string text;
  for (const JobStatus from : kAll) {
    text += std::string(to_string(from)) + ":";
    for (const JobStatus to : kAll)
      if (may_follow(from, to)) text += " " + std::string(to_string(to));
    text += "\n";
  }
  EXPECT_EQ(text,
            "undefined: created\n"
            "created: running aborting null\n"
            "running: paused ready waiting aborting\n"
            "paused: running\n"
            "ready: standby waiting aborting\n"
            "standby: ready\n"
            "waiting: pending aborting\n"
            "pending: aborting concluded\n"
            "aborting: aborting concluded\n"
            "concluded: null\n"
            "null:\n");
}

// A job that does what the test says.
class TestJob : public Job {
 public:
  TestJob(JobOptions options, JobType type = JobType::kBackup) : Job(type, std::move(options)) {}

  void end() {
    go_.store(true);
    notice();
  }
  void fail() {
    fail_.store(true);
    end();
  }
  void get_ready() {
    ready_.store(true);
    notice();
  }
  void meet_error(OnError policy) {
    policy_ = policy;
    error_.store(true);
    notice();
  }
  bool fails_in_prepare = false;
  std::string steps;

 protected:
  Task<void> run() override {
    add_total(100);
    while (true) {
      co_await pause_point();
      if (error_.exchange(false)) {
        const ErrorAction action =
            co_await request_failed(policy_, JobSide::kRead, Error::system(EIO), 0);
        if (action == ErrorAction::kReport) throw Error::system(EIO);
        continue;
      }
      if (ready_.exchange(false)) become_ready();
      if (fail_) throw Error::system(EIO);
      if (go_ || completing() || ending_softly()) break;
      co_await idle(std::chrono::seconds(100));
    }
    add_done(100);
  }
  Task<void> prepare() override {
    if (fails_in_prepare) throw Error::system(ENOSPC);
    co_return;
  }
  Task<void> commit() override {
    steps += "commit ";
    co_return;
  }
  Task<void> abort() override {
    steps += "abort ";
    co_return;
  }
  Task<void> clean() override {
    steps += "clean";
    co_return;
  }
  bool can_complete() const override { return true; }

 private:
  std::atomic<bool> go_{false}, fail_{false}, ready_{false}, error_{false};
  OnError policy_ = OnError::kReport;
};

class Fixture {
 public:
  Fixture() : jobs(world.context, [this](const JobEvent& event) { note(event); }) {}
  ~Fixture() { world.run(jobs.shutdown()); }

  std::shared_ptr<TestJob> add(JobOptions options, std::shared_ptr<Transaction> transaction = {},
                               JobType type = JobType::kBackup) {
    auto job = std::make_shared<TestJob>(std::move(options), type);
    jobs.add(job, std::move(transaction));
    return job;
  }
  std::shared_ptr<TestJob> begin(JobOptions options) {
    auto job = add(std::move(options));
    jobs.start(job);
    return job;
  }
  // What happened so far: S status id; R, C, X, E and P with the job.
  std::string said() {
    const std::lock_guard lock(mutex_);
    return text_;
  }
  bool wait(const std::string& end) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < limit) {
      if (said().ends_with(end)) return true;
      world.run(sleep_for(std::chrono::milliseconds(2)));
    }
    return false;
  }

  World world;

 private:
  void note(const JobEvent& event) {
    const std::lock_guard lock(mutex_);
    if (!text_.empty()) text_ += ", ";
    if (event.kind == JobEvent::Kind::kStatus)
      text_ += "S " + std::string(to_string(event.status)) + " " + event.id;
    else
      text_ += std::string(1, "SRPXCE"[static_cast<int>(event.kind)]) + " " + event.id;
    if (event.error) text_ += " error=" + *event.error;
    if (event.kind == JobEvent::Kind::kError) text_ += " " + std::string(to_string(event.action));
  }
  std::mutex mutex_;
  std::string text_;

 public:
  Jobs jobs;
};

JobOptions named(const std::string& id) { return {.id = id, .speed = 0}; }

TEST(Jobs, EndsByItself) {
  Fixture f;
  const auto job = f.begin(named("j"));
  EXPECT_TRUE(f.wait("S running j"));
  EXPECT_EQ(f.jobs.get("j")->info().status, JobStatus::kRunning);
  job->end();
  EXPECT_TRUE(f.wait("S null j"));
  EXPECT_EQ(f.said(),
            "S created j, S running j, S waiting j, S pending j, X j, S concluded j, S null j");
  EXPECT_EQ(job->steps, "commit clean");
  EXPECT_EQ(error_of([&] { f.jobs.get("j"); }), "Job not found");
}

TEST(Jobs, JobsThatMakeImagesHaveNoBlockEvents) {
  Fixture f;
  const auto job = f.add({.id = "c", .auto_dismiss = false}, nullptr, JobType::kCreate);
  f.jobs.start(job);
  job->end();
  EXPECT_TRUE(f.wait("S concluded c"));
  EXPECT_EQ(f.said(), "S created c, S running c, S waiting c, S pending c, S concluded c");
  EXPECT_EQ(job->info().done, job->info().total);
  job->dismiss();
  EXPECT_TRUE(f.wait("S null c"));
}

TEST(Jobs, ChecksNames) {
  Fixture f;
  for (const std::string id : {"", "c 4", "1a", "#x"})
    EXPECT_EQ(error_of([&] { f.add(named(id)); }), "Invalid job ID '" + id + "'");
  f.add(named(std::string(200, 'x')));
  EXPECT_EQ(error_of([&] { f.add(named(std::string(200, 'x'))); }),
            "Job ID '" + std::string(200, 'x') + "' already in use");
  f.jobs.withdraw(f.jobs.get(std::string(200, 'x')));
  EXPECT_EQ(error_of([&] { f.add({.id = "n", .speed = -1}); }),
            "Parameter 'speed' expects a non-negative value");
  EXPECT_TRUE(f.said().ends_with("S created n, S null n"));
}

TEST(Jobs, PausesOnceForEachUser) {
  Fixture f;
  const auto job = f.begin(named("j"));
  job->pause();
  EXPECT_TRUE(f.wait("S paused j"));
  EXPECT_TRUE(job->info().paused);
  EXPECT_EQ(error_of([&] { job->pause(); }), "Job is already paused");
  EXPECT_EQ(error_of([&] { job->complete(); }),
            "Job 'j' in state 'paused' cannot accept command verb 'complete'");
  EXPECT_EQ(error_of([&] { f.world.run(job->cancel(false)); }),
            "The block job for device 'j' is currently paused");
  job->resume();
  EXPECT_TRUE(f.wait("S running j"));
  EXPECT_EQ(error_of([&] { job->resume(); }), "Can't resume a job that was not paused");
  job->pause();
  EXPECT_TRUE(f.wait("S paused j"));
  f.world.run(job->cancel(true));
  EXPECT_TRUE(f.wait("S null j"));
  EXPECT_TRUE(
      f.said().ends_with("S paused j, S running j, S aborting j, C j, S concluded j, S null j"));
  EXPECT_EQ(job->steps, "abort clean");
}

TEST(Jobs, IsReadyUntilItIsAskedToEnd) {
  for (const bool complete : {true, false}) {
    Fixture f;
    const auto job = f.begin(named("j"));
    job->get_ready();
    EXPECT_TRUE(f.wait("S ready j, R j"));
    job->pause();
    EXPECT_TRUE(f.wait("S standby j"));
    if (complete) job->complete();
    job->resume();
    if (!complete) {
      EXPECT_TRUE(f.wait("S ready j"));
      f.world.run(job->cancel(false));
    }
    EXPECT_TRUE(f.wait("S null j"));
    EXPECT_TRUE(f.said().ends_with(
        "S standby j, S ready j, S waiting j, S pending j, X j, S concluded j, S null j"));
  }
}

TEST(Jobs, WaitsForThePermissionToMakeItsChanges) {
  for (const bool allowed : {true, false}) {
    Fixture f;
    const auto job = f.begin({.id = "j", .auto_finalize = false, .auto_dismiss = false});
    EXPECT_EQ(error_of([&] { f.world.run(job->finalize()); }),
              "Job 'j' in state 'running' cannot accept command verb 'finalize'");
    job->end();
    EXPECT_TRUE(f.wait("S waiting j, S pending j, P j"));
    EXPECT_EQ(job->steps, "");
    EXPECT_TRUE(job->info().paused);
    f.world.run(allowed ? job->finalize() : job->cancel(true));
    EXPECT_TRUE(f.said().ends_with(allowed ? "P j, X j, S concluded j"
                                           : "P j, S aborting j, C j, S concluded j"));
    EXPECT_EQ(job->info().error.value_or(""), allowed ? "" : "Operation canceled");
    EXPECT_EQ(error_of([&] { job->pause(); }),
              "Job 'j' in state 'concluded' cannot accept command verb 'pause'");
    job->dismiss();
    EXPECT_TRUE(f.jobs.list().empty());
  }
}

TEST(Jobs, FailsInTheEnd) {
  Fixture f;
  const auto job = f.begin({.id = "j", .auto_dismiss = false});
  job->meet_error(OnError::kReport);
  EXPECT_TRUE(f.wait("S concluded j"));
  EXPECT_TRUE(
      f.said().ends_with("E j report, S aborting j, X j error=Input/output error, S concluded j"));
  EXPECT_EQ(job->info().error, "Input/output error");
  const auto late = f.add({.id = "late"});
  late->fails_in_prepare = true;
  f.jobs.start(late);
  late->end();
  EXPECT_TRUE(f.wait("S null late"));
  EXPECT_TRUE(
      f.said().ends_with("S pending late, S aborting late, X late error=No space left on "
                         "device, S concluded late, S null late"));
  EXPECT_EQ(late->steps, "abort clean");
}

TEST(Jobs, StopsAtErrorsWhereItIsToldSo) {
  Fixture f;
  const auto job = f.begin(named("j"));
  job->meet_error(OnError::kStop);
  EXPECT_TRUE(f.wait("E j stop, S paused j"));
  EXPECT_EQ(job->info().io_status, IoStatus::kFailed);
  job->resume();
  EXPECT_EQ(job->info().io_status, IoStatus::kOk);
  EXPECT_TRUE(f.wait("S running j"));
  job->meet_error(OnError::kIgnore);
  EXPECT_TRUE(f.wait("E j ignore"));
  job->meet_error(OnError::kEnospc);
  EXPECT_TRUE(f.wait("S null j"));
}

TEST(Jobs, ConcludesTogether) {
  Fixture f;
  const auto both = std::make_shared<Transaction>();
  const auto one = f.add({.id = "t1", .auto_finalize = false}, both);
  const auto two = f.add({.id = "t2", .auto_finalize = false}, both);
  f.jobs.start(two);
  f.jobs.start(one);
  one->end();
  EXPECT_TRUE(f.wait("S waiting t1"));
  two->end();
  EXPECT_TRUE(f.wait("S waiting t2, S pending t2, P t2, S pending t1, P t1"));
  f.world.run(one->finalize());
  EXPECT_TRUE(
      f.said().ends_with("P t1, X t2, S concluded t2, S null t2, X t1, S concluded t1, S null t1"));
}

TEST(Jobs, EndsTogetherWhenOneIsCancelled) {
  for (const bool waiting : {false, true}) {
    Fixture f;
    const auto both = std::make_shared<Transaction>();
    const auto one = f.add({.id = "t1"}, both);
    const auto two = f.add({.id = "t2"}, both);
    f.jobs.start(two);
    f.jobs.start(one);
    if (waiting) {
      one->end();
      EXPECT_TRUE(f.wait("S waiting t1"));
    }
    f.world.run(one->cancel(true));
    EXPECT_TRUE(f.wait("S null t1"));
    EXPECT_TRUE(
        f.said().ends_with("S aborting t1, S aborting t2, C t2, S concluded t2, S null t2, "
                           "C t1, S concluded t1, S null t1"))
        << f.said();
  }
}

TEST(Jobs, LeavesAFailedTransaction) {
  Fixture f;
  const auto both = std::make_shared<Transaction>();
  f.add(named("t1"), both);
  f.jobs.withdraw(f.jobs.get("t1"), true);
  EXPECT_EQ(f.said(), "S created t1, S aborting t1, S concluded t1, S null t1");
}

TEST(Jobs, ShutsDown) {
  Fixture f;
  f.begin(named("j"));
  const auto waits = f.begin({.id = "p", .auto_finalize = false, .auto_dismiss = false});
  waits->end();
  EXPECT_TRUE(f.wait("P p"));
  f.world.run(f.jobs.shutdown());
  EXPECT_TRUE(f.jobs.list().empty());
  const std::string said = f.said();
  EXPECT_NE(said.find("S aborting j, C j, S concluded j, S null j"), std::string::npos) << said;
  EXPECT_NE(said.find("S aborting p, C p, S concluded p"), std::string::npos) << said;
  EXPECT_TRUE(said.ends_with("S null p"));
}

TEST(Speed, LetsOnePieceGoAndThenSoMuchATime) {
  Speed speed;
  EXPECT_EQ(speed.take(1 << 30).count(), 0);
  speed.set(1000);
  const auto start = Speed::Clock::now();
  EXPECT_EQ(speed.take(5000, start).count(), 0);
  const auto wait = std::chrono::duration<double>(speed.take(1, start)).count();
  EXPECT_GT(wait, 4.5);
  EXPECT_LE(wait, 5.0);
  EXPECT_EQ(speed.take(1, start + std::chrono::seconds(6)).count(), 0);
  speed.set(1);
  EXPECT_EQ(speed.take(65536, start + std::chrono::seconds(7)).count(), 0);
  EXPECT_GT(std::chrono::duration<double>(speed.take(1, start + std::chrono::seconds(8))).count(),
            3600);
  speed.set(0);
  EXPECT_EQ(speed.take(1 << 30).count(), 0);
}

}  // namespace
}  // namespace cairn::live
