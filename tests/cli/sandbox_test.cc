#include "cli/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>

namespace cairn::cli {
namespace {

class Sandbox : public ::testing::Test {
 protected:
  Sandbox() {
    std::string name = (std::filesystem::temp_directory_path() / "cairn-sandbox-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    for (const char* file : {"mine", "other"}) std::ofstream(folder_ / file) << "content";
  }
  ~Sandbox() override { std::filesystem::remove_all(folder_); }
  std::string path(const char* name) const { return folder_ / name; }
  int run(const std::function<int()>& work, Budget budget = {}) {
    const Reach reach{.readable = {path("mine")}, .writable = {path("target")}, .create = true};
    return run_sandboxed(session_, reach, budget, work);
  }
  // The errno of opening NAME, 0 when it can be opened.
  static int opening(const std::string& name, int flags) {
    const int fd = ::open(name.c_str(), flags, 0600);
    return fd < 0 ? errno : 0;
  }

  std::filesystem::path folder_;
  Context context_;
  CancelSource cancel_;
  Session session_{.program = "test", .context = context_, .cancel = cancel_};
};

TEST_F(Sandbox, OpensWhatIsNamedAndNothingElse) {
  EXPECT_EQ(run([&] { return opening(path("mine"), O_RDONLY); }), 0);
  EXPECT_EQ(run([&] { return opening(path("mine"), O_RDWR); }), EACCES);
  EXPECT_EQ(run([&] { return opening(path("other"), O_RDONLY); }), EACCES);
  EXPECT_EQ(run([&] { return opening("/etc/passwd", O_RDONLY); }), EACCES);
  EXPECT_EQ(run([&] { return opening(path("new"), O_RDWR | O_CREAT); }), EACCES);
  EXPECT_EQ(run([&] { return ::unlink(path("other").c_str()) == 0 ? 0 : errno; }), EPERM);
  EXPECT_TRUE(std::filesystem::exists(path("other")));
}

TEST_F(Sandbox, WritesTheTargetAndRemovesItAfterAFailure) {
  EXPECT_EQ(run([&] { return opening(path("target"), O_RDWR | O_TRUNC); }), 0);
  EXPECT_TRUE(std::filesystem::exists(path("target")));
  // It was there before: whose it is is not ours to say.
  EXPECT_EQ(run([] { return 7; }), 7);
  EXPECT_TRUE(std::filesystem::exists(path("target")));
  std::filesystem::remove(path("target"));
  EXPECT_EQ(run([] { return 7; }), 7);
  EXPECT_FALSE(std::filesystem::exists(path("target")));
}

TEST_F(Sandbox, EndsAProgramThatWasTakenOver) {
  EXPECT_EQ(run([] { return ::socket(AF_INET, SOCK_STREAM, 0) < 0 ? 0 : 0; }), 1);
  EXPECT_EQ(run([] { return ::execl("/bin/true", "true", nullptr); }), 1);
  EXPECT_EQ(run([] {
              void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              return page == MAP_FAILED ? errno : 0;
            }),
            EPERM);
}

TEST_F(Sandbox, BoundsProcessorTime) {
  Budget budget;
  budget.cpu_seconds = 1;
  EXPECT_EQ(run(
                [] {
                  for (std::atomic<unsigned> i = 0;;) ++i;
                  return 0;
                },
                budget),
            1);
}

TEST_F(Sandbox, ReadsBudgets) {
  const Budget budget = Budget::parse("memory=128M,cpu=5,output=1k");
  EXPECT_EQ(budget.memory, 128u << 20);
  EXPECT_EQ(budget.cpu_seconds, 5u);
  EXPECT_EQ(budget.output, 1024u);
  EXPECT_THROW(Budget::parse("memory=1M"), Error);
  EXPECT_THROW(Budget::parse("cpu=0"), Error);
  EXPECT_THROW(Budget::parse("disk=1"), Error);
}

}  // namespace
}  // namespace cairn::cli
