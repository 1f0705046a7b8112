#include "daemon/journal/journal_text.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "support.h"

namespace cairn::daemon {
namespace {

using testing_support::error_of;

constexpr uint64_t kMiB = 1 << 20;

Journal sample() {
  Journal journal;
  journal.seen = 1796056862;
  JournalJob job;
  job.id = "m";
  job.type = live::JobType::kMirror;
  job.command = "blockdev-mirror";
  job.arguments.set("job-id", "m");
  job.speed = 4096;
  job.paused = true;
  job.nodes = {"disk", "t"};
  job.recipes.push_back(Value::object());
  job.files = {{"/d\n.qcow2", UINT64_MAX}, {"/t", 2}};
  job.open = std::make_shared<DirtyBitmap>("", 10 * kMiB, kMiB);
  job.open->mark(3 * kMiB, 2 * kMiB);
  job.group = "g";
  job.written = std::make_shared<DirtyBitmap>("", 10 * kMiB, 512);
  job.written->mark(kMiB, 1024);
  journal.jobs.push_back(std::move(job));
  JournalJob lost;
  lost.id = "x";
  lost.type = live::JobType::kCreate;
  lost.lost = "it ended";
  journal.jobs.push_back(std::move(lost));
  return journal;
}

// LINES as they are in a file.
std::string with_sums(const std::vector<std::string>& lines) {
  std::string text;
  uint32_t sum = 0;
  for (const std::string& line : lines) {
    sum = crc32c(bytes_of(line), sum);
    text += fmt::format("{:08x} {}\n", sum, line);
  }
  return text;
}

TEST(JournalText, ComesBack) {
  JournalWriter writer;
  std::string text = writer.whole(sample());
  text += writer.change("m", true, {{0, 1}, {9 * kMiB, kMiB}});
  text += writer.time(1796056900);
  text += writer.change("m", false, {{3 * kMiB, kMiB}});
  const Journal back = parse_journal(text);
  EXPECT_EQ(back.seen, 1796056900);
  ASSERT_EQ(back.jobs.size(), 2u);
  EXPECT_EQ(back.jobs[0].group, "g");
  EXPECT_EQ(back.jobs[1].group, "");
  EXPECT_EQ(back.jobs[0].written->dirty_bytes(), 1024u);
  const JournalJob& job = back.jobs[0];
  EXPECT_EQ(job.type, live::JobType::kMirror);
  EXPECT_EQ(job.command, "blockdev-mirror");
  EXPECT_EQ(job.speed, 4096);
  EXPECT_TRUE(job.paused);
  EXPECT_EQ(job.nodes, (std::vector<std::string>{"disk", "t"}));
  ASSERT_EQ(job.files.size(), 2u);
  EXPECT_EQ(job.files[0].path, "/d\n.qcow2");
  EXPECT_EQ(job.files[0].number, UINT64_MAX);
  const live::Runs open{{0, kMiB}, {4 * kMiB, kMiB}, {9 * kMiB, kMiB}};
  EXPECT_EQ(live::dirty_runs(*job.open), open);
  EXPECT_EQ(back.jobs[1].lost, "it ended");
}

TEST(JournalText, JobsEnd) {
  JournalWriter writer;
  const std::string whole = writer.whole(sample());
  const Journal said = parse_journal(whole + writer.end("m", "completed"));
  ASSERT_EQ(said.jobs.size(), 2u);
  EXPECT_EQ(said.jobs[0].lost, "completed");
  JournalWriter other;
  other.whole(sample());
  EXPECT_EQ(parse_journal(whole + other.end("m", "")).jobs.size(), 1u);
}

TEST(JournalText, AChangeThatIsCutIsLeftOut) {
  JournalWriter writer;
  const std::string whole = writer.whole(sample());
  const std::string change = writer.change("m", true, {{0, kMiB}});
  for (size_t kept = 0; kept < change.size(); ++kept) {
    const Journal back = parse_journal(whole + change.substr(0, kept));
    EXPECT_FALSE(back.jobs[0].open->run_at(0, 1).dirty);
  }
  std::string torn = whole + change;
  torn[whole.size() + 12] ^= 1;
  EXPECT_FALSE(parse_journal(torn).jobs[0].open->run_at(0, 1).dirty);
}

TEST(JournalText, AnyOtherDamageIsAnError) {
  JournalWriter writer;
  std::string text = writer.whole(sample());
  for (size_t kept = 0; kept < text.size(); ++kept)
    EXPECT_NE(error_of([&] { parse_journal(text.substr(0, kept)); }), "") << kept;
  text += writer.change("m", true, {{0, kMiB}});
  const size_t stable = text.size();
  text += writer.change("m", true, {{kMiB, kMiB}});
  // A line end that is lost makes the two last lines one, which is as one that was cut.
  for (size_t i = 0; i + 1 < stable; ++i) {
    std::string damaged = text;
    damaged[i] ^= 4;
    EXPECT_NE(error_of([&] { parse_journal(damaged); }), "") << i;
  }
}

TEST(JournalText, RefusesWhatMakesNoSense) {
  const std::string head = R"({"cairn-jobs": 1, "seen": 1, "jobs": 1})";
  const auto job = [](const std::string& open) {
    return R"({"id": "j", "type": "mirror", "command": "c", "arguments": {}, "speed": 0, )"
           R"("paused": false, "nodes": [], "recipes": [], "files": [])" +
           (open.empty() ? std::string() : ", \"open\": " + open) + "}";
  };
  const std::string bitmap = R"({"length": 4096, "granularity": 512, "bits": "/w=="})";
  EXPECT_NO_THROW(parse_journal(with_sums({head, job(bitmap)})));
  EXPECT_NO_THROW(parse_journal(with_sums({head, job(""), R"({"job": "j", "done": [0, 9]})"})));
  for (const std::vector<std::string>& lines : {
           std::vector<std::string>{"", "x"},
           {R"({"cairn-jobs": 2, "seen": 1, "jobs": 0})"},
           {R"({"cairn-jobs": 1, "seen": 1, "jobs": -1})"},
           {R"({"cairn-jobs": 1, "seen": 1, "jobs": 20000})"},
           {head, "[]"},
           {head, R"({"id": "j"})"},
           {head, R"({"id": "", "type": "mirror", "lost": "x"})"},
           {head, R"({"id": "j", "type": "mirrors", "lost": "x"})"},
           {head, job(R"({"length": 4096, "granularity": 511, "bits": ""})")},
           {head, job(R"({"length": 4096, "granularity": 512, "bits": "!!"})")},
           {head, job(R"({"length": 4096, "granularity": 512, "bits": "////"})")},
           {head, job(R"({"length": -1, "granularity": 512, "bits": ""})")},
           {head, job(R"({"length": 4611686018427387904, "granularity": 512, "bits": ""})")},
           {head, job(bitmap), R"({"job": "k", "open": []})"},
           {head, job(bitmap), R"({"job": "j", "open": [0]})"},
           {head, job(bitmap), R"({"job": "j", "open": [4096, 1]})"},
           {head, job(bitmap), R"({"job": "j", "open": [0, -1]})"},
           {head, job(bitmap), R"({"job": "j"})"},
           {head, job(bitmap), R"({"seen": "1"})"},
       })
    EXPECT_NE(error_of([&] { parse_journal(with_sums(lines)); }), "") << lines.back();
}

}  // namespace
}  // namespace cairn::daemon
