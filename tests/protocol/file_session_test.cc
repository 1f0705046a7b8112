// A file of a server as a disk: what moves the end of the file at the same time.
#include "protocol/file_session.h"

#include <algorithm>

#include "async/task_group.h"
#include "protocol/file_session_node.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

// A file whose server does at once what it is asked for, and answers writes when the test lets it.
class HeldFile : public FileSessionNode {
 public:
  explicit HeldFile(Context& context)
      : FileSessionNode(context, *context.registry().find("nfs"), "held", 1, 0) {
    set_length(0);
    set_read_only(false);
  }

  void answer() { answers_.release(2); }
  bool was_asked() const { return asked_ != 0; }

  std::vector<std::byte> bytes;  // at the server

 protected:
  SessionPtr make_session() const override { return nullptr; }
  Task<void> send_write(uint64_t offset, ByteSpan in) override {
    bytes.resize(std::max<size_t>(bytes.size(), offset + in.size()));
    std::copy(in.begin(), in.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
    ++asked_;
    co_await answers_.acquire();
  }
  Task<void> send_length(uint64_t length) override {
    bytes.resize(length);
    co_return;
  }
  Task<void> do_flush() override { co_return; }

 private:
  unsigned asked_ = 0;
  Semaphore answers_{0};
};

constexpr uint64_t kOffset = 1 << 20;
const std::vector<std::byte> kData(64 << 10, std::byte{7});

// A resize, as REQUEST says, is asked for while a write past the end has no answer.
Task<void> resize_during_write(HeldFile& file, ResizeRequest request) {
  TaskGroup writes, resizes;
  writes.spawn(file.write(kOffset, kData));
  while (!file.was_asked()) co_await yield_now();
  resizes.spawn(file.resize(request));
  for (int i = 0; i < 100; ++i) co_await yield_now();
  file.answer();
  co_await writes.join();
  co_await resizes.join();
}

TEST(FileSessionNode, RoomForOneWriteDoesNotCutOffAnother) {
  World world;
  HeldFile file(world.context);
  world.run(resize_during_write(file, {.length = kOffset / 2, .exact = false}));
  EXPECT_EQ(file.length(), kOffset + kData.size());
  ASSERT_EQ(file.bytes.size(), file.length());
  EXPECT_TRUE(std::equal(kData.begin(), kData.end(), file.bytes.begin() + kOffset));
}

TEST(FileSessionNode, AnExactResizeComesAfterTheWrite) {
  World world;
  HeldFile file(world.context);
  world.run(resize_during_write(file, {.length = kOffset / 2}));
  EXPECT_EQ(file.length(), kOffset / 2);
  EXPECT_EQ(file.bytes.size(), kOffset / 2);
}

// A session that ends as soon as it is open.
class EndingSession : public FileSession {
 public:
  explicit EndingSession(Error why) : FileSession("test", nullptr), why_(std::move(why)) {}

 protected:
  void connect() override {}
  void serve() override { throw Error(why_); }
  void finish(const Error& why, bool) override { end_work(why); }

 private:
  const Error why_;
};

Task<std::exception_ptr> ask_after_the_end(EndingSession& session) {
  co_await session.open();
  while (!session.broken()) co_await yield_now();
  FileOperation operation = FileOperation::sync();
  co_await session.perform(operation);
  session.stop();
  co_return operation.error;
}

// An interrupted verb ends with the code of the signal, whichever request is the first to know.
TEST(FileSession, TellsLaterRequestsTheKindOfItsEnd) {
  World world;
  EndingSession session(Error(ErrorKind::kCancelled, "cancelled"));
  const std::exception_ptr error = world.run(ask_after_the_end(session));
  try {
    std::rethrow_exception(error);
  } catch (const Error& caught) {
    EXPECT_EQ(caught.kind(), ErrorKind::kCancelled);
    EXPECT_EQ(caught.message(), "cancelled");
  }
}

}  // namespace
}  // namespace cairn
