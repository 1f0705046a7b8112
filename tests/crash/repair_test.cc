// A repair that is cut short: whatever part of its writes reached the image, the journal beside it
// undoes them, and the next repair does all of it.
#include <cstring>

#include "base/bytes.h"
#include "block/capabilities/checkable.h"
#include "filter/record/record.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;
using Kind = RecordedEvent::Kind;

constexpr uint64_t kRepairedBytes = 256 << 10;

struct Damage {
  std::string name;
  std::string options;
  bool rebuild;  // counters of used clusters are nought, so the structures are made anew
};

class Repair : public testing::TestWithParam<Damage> {
 protected:
  using Bytes = std::vector<std::byte>;

  static Bytes read_file(const std::string& path) {
    Bytes bytes(std::filesystem::file_size(path));
    std::ifstream in(path, std::ios::binary);
    in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }
  static void write_file(const std::string& path, const Bytes& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }

  void make_damaged() {
    world_.create(disk_, "qcow2", kRepairedBytes, GetParam().options);
    std::mt19937_64 random(7);
    NodePtr node = world_.open(disk_, "qcow2", true);
    for (int i = 0; i < 12; ++i) {
      const auto bytes = random_bytes(random, 1 + random() % 20'000);
      world_.run(node->write(random() % (kRepairedBytes - bytes.size()), bytes));
    }
    content_.resize(kRepairedBytes);
    world_.run(node->read(0, content_));
    world_.close(node);
    damaged_ = read_file(disk_);
    const uint64_t cluster = uint64_t{1} << load_be<uint32_t>(damaged_, 20);
    const uint64_t block = load_be<uint64_t>(damaged_, load_be<uint64_t>(damaged_, 48));
    // Two leaks past the end, and counters of used clusters that are wrong; 16 bits each.
    const uint64_t end = (damaged_.size() + cluster - 1) / cluster;
    damaged_.resize((end + 2) * cluster);
    for (uint64_t c = end; c < end + 2 && c < cluster / 2; ++c)
      store_be<uint16_t>(damaged_, block + 2 * c, 1);
    for (uint64_t c = 6; c < 12; ++c)
      store_be<uint16_t>(damaged_, block + 2 * c, GetParam().rebuild ? 0 : 3);
  }

  NodePtr open_for_repair(const std::string& options) {
    OpenRequest request;
    request.options = Options::parse_list(options);
    request.image_opts = true;
    request.flags.writable = true;
    request.flags.for_check = true;
    return world_.run(open_node(world_.context, std::move(request)));
  }
  CheckResult check(Node& node, CheckRequest::Repair mode) {
    CheckRequest request;
    request.repair = mode;
    return world_.run(check_image(node, request));
  }

  // Repairs the image until write number LIMIT fails; what was written, and the journal that is
  // left.
  std::vector<RecordedEvent> repair_until(uint64_t limit) {
    write_file(disk_, damaged_);
    NodePtr node = open_for_repair(
        "driver=qcow2,file.driver=record,file.file.driver=fault,file.file.on=write,file.file."
        "after=" +
        std::to_string(limit) + ",file.file.file.driver=file,file.file.file.filename=" + disk_);
    auto* recorder = dynamic_cast<RecordNode*>(node->file());
    EXPECT_NE(recorder, nullptr);
    try {
      check(*node, CheckRequest::Repair::kAll);
    } catch (const Error&) {
    }
    std::vector<RecordedEvent> events = recorder->events();
    try {
      world_.close(node);
    } catch (const Error&) {
    }
    return events;
  }

  // The image after the first COUNT events; of those behind the last flush some are missing, and
  // the last one may be torn.
  Bytes after(const std::vector<RecordedEvent>& events, size_t count, std::mt19937_64& random) {
    Bytes file = damaged_;
    size_t epoch = 0;
    for (size_t i = 0; i < count; ++i)
      if (events[i].kind == Kind::kFlush) epoch = i;
    for (size_t i = 0; i < count; ++i) {
      const RecordedEvent& event = events[i];
      if (event.kind == Kind::kResize) file.resize(event.offset);
      if (event.kind != Kind::kWrite || (i > epoch && random() % 3 == 0)) continue;
      uint64_t length = event.bytes.size();
      if (i > epoch && random() % 3 == 0) length = random() % (length / 512 + 1) * 512;
      if (file.size() < event.offset + length) file.resize(event.offset + length);
      std::memcpy(file.data() + event.offset, event.bytes.data(), length);
    }
    return file;
  }

  void expect_repaired() {
    NodePtr node = open_for_repair("driver=qcow2,file.driver=file,file.filename=" + disk_);
    check(*node, CheckRequest::Repair::kAll);
    const CheckResult result = check(*node, CheckRequest::Repair::kNone);
    EXPECT_EQ(result.corruptions + result.leaks + result.check_errors, 0u);
    world_.close(node);
    EXPECT_FALSE(std::filesystem::exists(journal_));
    node = world_.open(disk_, "qcow2", true);
    Bytes content(kRepairedBytes);
    world_.run(node->read(0, content));
    EXPECT_TRUE(content == content_);
    world_.close(node);
  }

  World world_;
  Folder folder_;
  std::string disk_ = folder_.file("disk");
  std::string journal_ = disk_ + ".cairn-repair";
  Bytes damaged_;
  Bytes content_;
};

TEST_P(Repair, UndoesWhatWasCutShort) {
  make_damaged();
  size_t writes = 0;
  for (const RecordedEvent& event : repair_until(UINT32_MAX))
    writes += event.kind == Kind::kWrite ? 1 : 0;
  ASSERT_FALSE(std::filesystem::exists(journal_));
  ASSERT_GE(writes, 3u);
  expect_repaired();
  // All but the marks of the header, which are set when everything else is on disk.
  const std::vector<RecordedEvent> events = repair_until(writes - 2);
  ASSERT_TRUE(std::filesystem::exists(journal_));
  const Bytes journal = read_file(journal_);
  std::mt19937_64 random(11);
  for (size_t count = 0; count <= events.size(); ++count) {
    for (int variant = 0; variant < 3; ++variant) {
      write_file(disk_, after(events, count, random));
      write_file(journal_, journal);
      NodePtr node = open_for_repair("driver=qcow2,file.driver=file,file.filename=" + disk_);
      world_.close(node);
      Bytes undone = read_file(disk_);
      ASSERT_TRUE(undone == damaged_) << "after event " << count;
      ASSERT_FALSE(std::filesystem::exists(journal_));
      expect_repaired();
      if (HasFailure()) FAIL() << "after event " << count;
    }
  }
}

// A journal that was cut itself: what it still describes is undone, and nothing else was written.
TEST_P(Repair, ReadsAJournalUpToWhereItIsWhole) {
  make_damaged();
  repair_until(1);
  ASSERT_TRUE(std::filesystem::exists(journal_));
  const Bytes journal = read_file(journal_);
  const Bytes image = read_file(disk_);
  for (size_t bytes = 0; bytes < journal.size(); bytes += 97 + bytes / 3) {
    write_file(disk_, bytes < 1536 ? damaged_ : image);
    write_file(journal_, Bytes(journal.begin(), journal.begin() + static_cast<ptrdiff_t>(bytes)));
    expect_repaired();
    if (HasFailure()) FAIL() << bytes << " bytes of the journal";
  }
}

INSTANTIATE_TEST_SUITE_P(Damages, Repair,
                         testing::Values(Damage{"counters", "cluster_size=4k", false},
                                         Damage{"rebuild", "cluster_size=4k", true},
                                         Damage{"rebuild_v2", "cluster_size=4k,compat=v2", true}),
                         [](const auto& chosen) { return chosen.param.name; });

}  // namespace
}  // namespace cairn
