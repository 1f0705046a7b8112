// What a crash at any moment leaves behind: the file's changes are recorded, then parts of them are
// replayed as a disk that lost power would have kept them. The image must open, have no corruption,
// and hold what was flushed.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "block/capabilities/checkable.h"
#include "crash/replay.h"
#include "layouts.h"

namespace cairn {
namespace {

using namespace testing_support;

class Crash : public testing::TestWithParam<Layout> {
 protected:
  // Guest contents at a flush: EVENTS is how many events had been recorded by then.
  struct Promise {
    size_t events = 0;
    std::vector<std::byte> content;
  };

  void record() {
    const std::string path = folder_.file("disk");
    world_.add_secret("s0", "sesame");
    world_.create(path, GetParam().format, kSize, GetParam().options());
    recording_.add(path);
    std::vector<std::pair<std::string, std::string>> files = {{"file", path}};
    if (data_file()) {
      recording_.add(path + ".data");
      files.push_back({"data-file", path + ".data"});
    }
    NodePtr node = open_recorded(world_, GetParam().format, files, open_options());
    const auto count = [&] {
      size_t all = 0;
      for (const auto& [child, name] : files) all += recorder_of(*node, child).count();
      return all;
    };
    std::vector<std::byte> model(kSize);
    written_.assign(kSize, {});
    promises_.push_back({0, model});
    std::mt19937_64 random(42);
    for (int step = 0; step < 120; ++step) {
      const uint64_t length = 1 + random() % (step % 8 == 0 ? 200'000 : 9'000);
      const uint64_t offset = random() % (kSize - length);
      const unsigned choice = static_cast<unsigned>(random() % 8);
      if (choice < 5) {
        const auto bytes = random_bytes(random, length);
        world_.run(node->write(offset, bytes));
        std::memcpy(model.data() + offset, bytes.data(), length);
      } else if (choice == 5) {
        world_.run(node->write_zeroes(offset, length, {.may_unmap = step % 2 == 0}));
        std::memset(model.data() + offset, 0, length);
      } else {
        world_.run(node->flush());
        promises_.push_back({count(), model});
      }
      for (uint64_t at = offset; choice < 6 && at < offset + length; ++at)
        written_[at].push_back({count(), model[at]});
    }
    world_.run(node->flush());
    promises_.push_back({count(), model});
    world_.run(node->close());
    for (size_t i = 0; i < files.size(); ++i)
      recording_.take(i, recorder_of(*node, files[i].first));
  }

  bool data_file() const { return GetParam().has("data_file="); }
  bool encrypted() const { return GetParam().has("encrypt."); }
  bool lazy() const { return GetParam().has("lazy_refcounts=on"); }
  // Each with a comma before it.
  std::string open_options() const {
    const std::string options = GetParam().open_options();
    return options.empty() ? options : "," + options;
  }
  // Some take longer: to be repaired, to be unlocked, with a second file. A build that is slow
  // itself is told to look at fewer.
  size_t states() const {
    const char* told = std::getenv("CAIRN_CRASH_STATES");
    const size_t all = told != nullptr ? std::stoul(told) : 250;
    return lazy() || encrypted() || data_file() ? std::min<size_t>(50, all) : all;
  }

  // What is there after the first COUNT events; those behind the last flush survive by CHANCE.
  void examine(size_t count, std::mt19937_64* chance, bool other_tool) {
    const std::string path = folder_.file("crashed");
    store_file(path, recording_.after(0, count, chance));
    std::string options = open_options();
    if (data_file()) {
      store_file(path + ".data", recording_.after(1, count, chance));
      options += ",data-file.driver=file,data-file.filename=" + path + ".data";
    }
    if (!options.empty()) options.erase(0, 1);
    // Counters that were postponed are repaired when the image is opened for writing.
    const bool repair = GetParam().sample.crash == Sample::Crash::kRepaired;
    NodePtr node = world_.open(path, GetParam().format, lazy() || repair, options);
    std::string findings;
    CheckRequest request;
    if (repair) {
      request.repair = CheckRequest::Repair::kAll;
      world_.run(check_image(*node, request));
      request.repair = CheckRequest::Repair::kNone;
    }
    request.report = [&](std::string_view line) { findings += std::string(line) + "\n"; };
    const CheckResult result = world_.run(check_image(*node, request));
    ASSERT_EQ(result.corruptions, 0u) << "after event " << count << ":\n" << findings;
    ASSERT_EQ(result.check_errors, 0u);
    const Promise* promise = &promises_.front();
    for (const Promise& one : promises_)
      if (one.events <= count) promise = &one;
    std::vector<std::byte> content(kSize);
    world_.run(node->read(0, content));
    for (uint64_t at = 0; at < kSize; ++at) {
      if (content[at] == promise->content[at]) continue;
      // Then a later write to this byte had begun.
      bool later = false;
      for (const auto& [events, value] : written_[at])
        later = later || (events >= promise->events && value == content[at]);
      ASSERT_TRUE(later) << "byte " << at << " after event " << count;
    }
    world_.run(node->close());
    if (!other_tool) return;
    // QEMU cannot check every format; all of them it can open. A log it replays when it may write.
    const std::string& format = GetParam().format;
    const std::string verb = format == "vpc" || format == "qcow" ? "info"
                             : format == "vhdx"                  ? "check -q -r all"
                                                                 : "check -q";
    std::string image = " -f " + format + " " + path;
    if (encrypted() || data_file())
      image = " --object secret,id=s0,data=sesame --image-opts driver=qcow2,file.filename=" + path +
              "," + options;
    const std::string command = "qemu-img " + verb + image + " >/dev/null 2>&1";
    const int code = std::system(command.c_str());
    ASSERT_TRUE(WIFEXITED(code));
    ASSERT_TRUE(WEXITSTATUS(code) == 0 || WEXITSTATUS(code) == 3)
        << "exit code " << WEXITSTATUS(code) << " after event " << count;
  }

  static constexpr uint64_t kSize = 2 << 20;
  World world_{1};
  Folder folder_;
  Recording recording_;
  std::vector<Promise> promises_;
  std::vector<std::vector<std::pair<size_t, std::byte>>> written_;  // per byte: when and what
};

TEST_P(Crash, EveryPrefixIsConsistent) {
  record();
  ASSERT_GT(recording_.size(), 100u);
  const size_t step = std::max<size_t>(1, recording_.size() / states());
  for (size_t count = 0; count <= recording_.size(); count += step) {
    examine(count, nullptr, count % (step * 16) == 0);
    if (HasFatalFailure()) return;
  }
}

TEST_P(Crash, AnyPartOfTheUnflushedIsConsistent) {
  record();
  std::mt19937_64 chance(7);
  for (size_t round = 0; round < states(); ++round) {
    const size_t count = chance() % (recording_.size() + 1);
    examine(count, &chance, round % 16 == 0);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, Crash, testing::ValuesIn(layouts([](const Sample& sample) {
                           return sample.crash != Sample::Crash::kUntested;
                         })),
                         [](const auto& chosen) { return chosen.param.name; });

// --- errors of the file ---

class Faults : public testing::TestWithParam<const char*> {};

// The Nth operation on the file fails, for every N: the failure is reported, and what is left is an
// image without corruption that holds what had been flushed.
TEST_P(Faults, AtEveryPointLeaveAConsistentImage) {
  Folder folder;
  const std::string path = folder.file("disk");
  for (const char* kind : {"write", "flush"}) {
    for (int point = 0; point < 60; ++point) {
      World world(1);
      world.create(path, "qcow2", 1 << 20, GetParam());
      OpenRequest request;
      request.options =
          Options::parse_list("driver=qcow2,file.driver=fault,file.on=" + std::string(kind) +
                              ",file.errno=28,file.once=" + (point % 2 == 0 ? "on" : "off") +
                              ",file.after=" + std::to_string(point) +
                              ",file.file.driver=file,file.file.filename=" + path);
      request.image_opts = true;
      request.flags.writable = true;
      std::mt19937_64 random(static_cast<uint64_t>(point));
      std::vector<std::byte> model(1 << 20);
      std::vector<bool> unsure(1 << 20);
      NodePtr node;
      int failures = 0;
      const auto attempt = [&](Task<void> task) {
        try {
          world.run(std::move(task));
          return true;
        } catch (const Error& error) {
          EXPECT_EQ(error.error_number(), ENOSPC) << error.message();
          ++failures;
          return false;
        }
      };
      node = world.run(open_node(world.context, std::move(request)));
      for (int step = 0; step < 25; ++step) {
        const uint64_t length = 1 + random() % 30'000;
        const uint64_t offset = random() % ((1 << 20) - length);
        const auto bytes = random_bytes(random, length);
        const bool zero = step % 5 == 4;
        const bool well = zero ? attempt(node->write_zeroes(offset, length))
                               : attempt(node->write(offset, bytes));
        for (uint64_t i = 0; i < length; ++i) {
          if (well) model[offset + i] = zero ? std::byte{0} : bytes[i];
          unsure[offset + i] = !well;
        }
        if (step % 6 == 5) attempt(node->flush());
      }
      const bool closed = attempt(node->close());
      node.reset();
      NodePtr after = world.open(path, "qcow2", false);
      std::string findings;
      CheckRequest check;
      check.report = [&](std::string_view line) { findings += std::string(line) + "\n"; };
      const CheckResult result = world.run(check_image(*after, check));
      ASSERT_EQ(result.corruptions, 0u) << kind << " " << point << "\n" << findings;
      if (closed) {
        std::vector<std::byte> content(1 << 20);
        world.run(after->read(0, content));
        for (size_t at = 0; at < content.size(); ++at) {
          if (!unsure[at]) {
            ASSERT_EQ(content[at], model[at]) << kind << " " << point << " byte " << at;
          }
        }
      }
      world.close(after);
      if (failures == 0) break;  // the point lies behind the last operation
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, Faults,
                         testing::Values("cluster_size=512", "",
                                         "cluster_size=16k,extended_l2=on"));

}  // namespace
}  // namespace cairn
