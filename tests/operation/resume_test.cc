#include <fmt/core.h>

#include <atomic>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "crash/replay.h"
#include "job/convert.h"
#include "job/copy_log.h"
#include "operation/check.h"
#include "operation/copy_record.h"
#include "operation_support.h"

namespace cairn {
namespace {

using namespace testing_support;
using operation::CopyRecord;
using operation::CopyRecordWriter;
using operation::parse_copy_record;

CopyRecord sample_record() {
  CopyRecord record;
  record.facts = {{"the state of source 1", "modified 2026 %\n"}, {"-c", "given"}, {"-l", ""}};
  record.object = "inode 5";
  record.target_bytes = 1 << 20;
  record.lost = {{512, 1024, "Input/output error"}, {8192, 512, ""}};
  record.done = 65536;
  record.begun = 131072;
  return record;
}

TEST(CopyRecordText, ComesBack) {
  CopyRecordWriter writer;
  std::string text = writer.whole(sample_record());
  text += writer.at(70000, 131072);
  const CopyRecord back = parse_copy_record(text);
  EXPECT_EQ(back.facts, sample_record().facts);
  EXPECT_EQ(back.object, "inode 5");
  EXPECT_EQ(back.target_bytes, uint64_t{1} << 20);
  ASSERT_EQ(back.lost.size(), 2u);
  EXPECT_EQ(back.lost[0].cause, "Input/output error");
  EXPECT_EQ(back.done, 70000u);
  EXPECT_EQ(back.begun, 131072u);
}

TEST(CopyRecordText, ALastLineThatIsCutIsLeftOut) {
  CopyRecordWriter writer;
  const std::string whole = writer.whole(sample_record());
  const std::string last = writer.at(70000, 140000);
  for (size_t kept = 0; kept < last.size(); ++kept) {
    const CopyRecord back = parse_copy_record(whole + last.substr(0, kept));
    EXPECT_EQ(back.done, 65536u);
    EXPECT_EQ(back.begun, 131072u);
  }
}

TEST(CopyRecordText, AnyOtherDamageIsAnError) {
  CopyRecordWriter writer;
  std::string text = writer.whole(sample_record());
  text += writer.at(70000, 140000);
  const size_t last = text.rfind('\n', text.size() - 2) + 1;
  for (size_t i = 0; i + 1 < last; ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_NE(error_of([&] { parse_copy_record(damaged); }), "") << i;
  }
}

// LINES as a journal has them, each after the checksum of all so far.
std::string with_sums(std::initializer_list<std::string_view> lines) {
  std::string text;
  uint32_t sum = 0;
  for (const std::string_view line : lines) {
    sum = crc32c(bytes_of(line), sum);
    text += fmt::format("{:08x} {}\n", sum, line);
  }
  return text;
}

TEST(CopyRecordText, LinesInAnotherOrderAreAnError) {
  const std::string_view first = "cairn-resume 1";
  EXPECT_NO_THROW(parse_copy_record(with_sums({first, "target =x", "made 4096", "lost 0 512 =e"})));
  EXPECT_NE(error_of([&] {
              parse_copy_record(with_sums({first, "target =x", "lost 0 512 =e"}));
            }),
            "");
  EXPECT_NE(error_of([&] { parse_copy_record(with_sums({first, "target =x", "at 0 0"})); }), "");
}

TEST(CopyRecordText, KeepsTheUploadOfAnObject) {
  CopyRecord record;
  record.upload = operation::UnfinishedUpload{.id = "2~x y/+=", .replaces = true, .parts = {}};
  record.upload->parts = {{.number = 2, .bytes = 5 << 20, .digest = "ab", .mark = "\"e\""}};
  CopyRecordWriter writer;
  std::string text = writer.whole(record);
  const UploadedPart later{.number = 1, .bytes = 7, .digest = "cd", .mark = ""};
  text += writer.part(later);
  const CopyRecord back = parse_copy_record(text);
  ASSERT_TRUE(back.upload);
  EXPECT_EQ(back.upload->id, "2~x y/+=");
  EXPECT_TRUE(back.upload->replaces);
  record.upload->parts.push_back(later);
  EXPECT_EQ(back.upload->parts, record.upload->parts);
  const std::string_view first = "cairn-resume 1";
  EXPECT_NE(error_of([&] {
              parse_copy_record(with_sums({first, "target =", "part 1 2 =a =b"}));
            }),
            "");
  EXPECT_NE(error_of([&] {
              parse_copy_record(with_sums({first, "target =", "upload 0 =a", "made 512"}));
            }),
            "");
}

// An entry for each chunk that was copied, after a flush.
class Entries : public CopyLog {
 public:
  struct Entry {
    size_t events;  // of the file, that came before it
    UnfinishedCopy copy;
  };

  Entries(Node& target, const RecordNode& file) : target_(target), file_(file) {}
  Task<void> begins(uint64_t end) override {
    if (end <= copy_.begun) co_return;
    const Mutex::Guard guard = co_await mutex_.lock();
    copy_.begun = end + 200'000;
    note();
  }
  Task<void> reached(uint64_t end) override {
    if (++calls_ % 3 != 0) co_return;
    const Mutex::Guard guard = co_await mutex_.lock();
    co_await target_.flush();
    copy_.done = std::max(copy_.done, end);
    note();
  }
  // What a journal says after so many EVENTS.
  UnfinishedCopy after(size_t events) const {
    UnfinishedCopy last;
    for (const Entry& entry : entries_)
      if (entry.events <= events) last = entry.copy;
    return last;
  }

 private:
  void note() { entries_.push_back({file_.events().size(), copy_}); }

  Node& target_;
  const RecordNode& file_;
  Mutex mutex_;
  std::atomic<unsigned> calls_{0};
  UnfinishedCopy copy_;
  std::vector<Entry> entries_;
};

struct Layout {
  const char* name;
  const char* format;
  const char* options;
  bool compress;
};

class ResumedCopy : public ::testing::TestWithParam<Layout> {
 protected:
  static constexpr uint64_t kBytes = 6 << 20;

  ResumedCopy() {
    std::vector<std::byte> data(kBytes);
    std::mt19937_64 random(7);
    for (int i = 0; i < 24; ++i) {
      const size_t at = random() % kBytes;
      const size_t end = std::min<size_t>(kBytes, at + random() % 300'000);
      for (size_t j = at; j < end; ++j) data[j] = static_cast<std::byte>(random());
    }
    store_file(source_, data);
    CreateOptions image;
    image.filename = target_;
    image.format = GetParam().format;
    image.options = Options::parse_list(GetParam().options);
    image.size = kBytes;
    world_.run(create_image(world_.context, std::move(image)));
    start_ = load_file(target_);
  }

  void copy(NodePtr target, CopyLog* log, uint64_t begin) {
    NodePtr source = world_.open(source_, "raw", false);
    ConvertOptions options;
    options.zero_target = true;
    options.compress = GetParam().compress;
    options.out_of_order = true;
    options.begin = begin;
    options.log = log;
    Convert job(world_.context, {source}, target, options, asking_.cancel);
    world_.run(job.run());
    world_.close(source);
  }

  void go_on_after(const std::vector<std::byte>& left, UnfinishedCopy unfinished) {
    store_file(target_, left);
    operation::CheckOptions repair;
    repair.repair = CheckRequest::Repair::kAll;
    world_.run(operation::check(asking_.caller, image(target_, GetParam().format), repair));
    NodePtr target = world_.open(target_, GetParam().format, true);
    unfinished.whole = GetParam().compress;
    world_.run(zero_unfinished(*target, unfinished));
    world_.run(target->flush());
    copy(target, nullptr, unfinished.done);
    world_.close(target);
    ASSERT_EQ(content(world_, target_, GetParam().format, 0, kBytes), load_file(source_))
        << "after " << unfinished.done << " bytes";
    const auto outcome =
        world_.run(operation::check(asking_.caller, image(target_, GetParam().format), {}));
    EXPECT_EQ(outcome.result.corruptions, 0u);
  }

  Folder folder_;
  World world_;
  Asking asking_{world_};
  std::string source_ = folder_.file("source.raw");
  std::string target_ = folder_.file("target");
  std::vector<std::byte> start_;
};

// Whatever of the writes after the last flush is there.
TEST_P(ResumedCopy, IsWholeAfterALossOfPowerAtAnyMoment) {
  NodePtr target = open_recorded(world_, GetParam().format, {{"file", target_}});
  const RecordNode& recorder = recorder_of(*target);
  Entries entries(*target, recorder);
  copy(target, &entries, 0);
  const std::vector<RecordedEvent> events = recorder.events();
  world_.close(target);
  std::mt19937_64 chance(11);
  const size_t step = std::max<size_t>(1, events.size() / 25);
  for (size_t count = 0; count <= events.size(); count += step)
    go_on_after(replay(start_, events, count, count % 2 == 0 ? &chance : nullptr),
                entries.after(count));
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, ResumedCopy,
    ::testing::Values(Layout{"raw", "raw", "", false}, Layout{"qcow2", "qcow2", "", false},
                      Layout{"qcow2_lazy", "qcow2", "lazy_refcounts=on,cluster_size=4k", false},
                      Layout{"qcow2_compressed", "qcow2", "", true},
                      Layout{"qed", "qed", "", false}, Layout{"vhdx", "vhdx", "", false},
                      Layout{"vdi", "vdi", "", false}, Layout{"vmdk", "vmdk", "", false},
                      Layout{"vpc", "vpc", "force_size=on", false}),
    [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace cairn
