// Power is lost while an overlay is committed, in both images at once: what a guest sees through
// the overlay is the same at every moment. And while a disk is copied into an image: what a later
// flush promised is there.
#include "job/commit.h"

#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "crash/replay.h"
#include "job/convert.h"

namespace cairn {
namespace {

using namespace testing_support;

struct Pair {
  std::string name;
  std::string base;  // options of creation
  std::string overlay;
  std::string key = {};  // options of opening, of both
};

class CommitCrash : public testing::TestWithParam<Pair> {
 protected:
  CommitCrash() { world_.add_secret("s0", "sesame"); }

  void scatter(Node& node, int count) {
    for (int i = 0; i < count; ++i) {
      const uint64_t length = 1 + random_() % 20'000;
      const uint64_t offset = random_() % (kDiskBytes - length);
      const auto bytes = random_bytes(random_, length);
      if (i % 4 == 3)
        world_.run(node.write_zeroes(offset, length));
      else
        world_.run(node.write(offset, bytes));
    }
  }

  std::vector<std::byte> content_of(const std::string& path) {
    NodePtr node = world_.open(path, "qcow2", false, GetParam().key);
    std::vector<std::byte> content(node->length());
    world_.run(node->read(0, content));
    const CheckResult result = world_.run(check_image(*node, {}));
    EXPECT_EQ(result.corruptions, 0u);
    world_.close(node);
    return content;
  }

  World world_{1};
  Folder folder_;
  std::mt19937_64 random_{17};
};

TEST_P(CommitCrash, TheGuestSeesTheSameAtEveryMoment) {
  const Pair& how = GetParam();
  const std::string base = folder_.file("base");
  const std::string top = folder_.file("top");
  const std::string key = how.key.empty() ? "" : "," + how.key;
  world_.create(base, "qcow2", kDiskBytes, how.base);
  NodePtr node = world_.open(base, "qcow2", true, how.key);
  scatter(*node, 20);
  world_.close(node);
  world_.create(top, "qcow2", kDiskBytes, "backing_file=base,backing_fmt=qcow2" + how.overlay);
  // A backing file has no options of its own in the name: they are given where it is opened.
  const std::string below =
      how.key.empty() ? "" : how.key + ",backing.driver=qcow2,backing." + how.key;
  const auto open_top = [&](const std::string& path, const std::string& under, bool writable) {
    if (how.key.empty()) return world_.open(path, "qcow2", writable);
    return world_.open(path, "qcow2", writable, below + ",backing.file.filename=" + under);
  };
  node = open_top(top, base, true);
  scatter(*node, 20);
  std::vector<std::byte> wanted(kDiskBytes);
  world_.run(node->read(0, wanted));
  world_.close(node);

  Recording recording;
  recording.add(base);
  recording.add(top);
  NodePtr lower = open_recorded(world_, "qcow2", {{"file", base}}, key);
  NodePtr upper = open_recorded(world_, "qcow2", {{"file", top}}, key + ",backing=");
  const CancelSource cancel;
  {
    std::vector<NodePtr> layers(1, upper);
    Commit job(layers, lower, 0, cancel);
    world_.run(job.run());
  }
  const bool emptied = world_.run(make_empty(*upper));
  EXPECT_TRUE(emptied);
  world_.run(upper->flush());
  world_.run(upper->close());
  world_.run(lower->close());
  recording.take(0, recorder_of(*lower));
  recording.take(1, recorder_of(*upper));
  ASSERT_GT(recording.size(), 20u);

  const std::string left = folder_.file("left");
  std::filesystem::create_directory(left);
  std::mt19937_64 chance(3);
  for (size_t count = 0; count <= recording.size(); ++count) {
    for (std::mt19937_64* by : {static_cast<std::mt19937_64*>(nullptr), &chance}) {
      store_file(left + "/base", recording.after(0, count, by));
      store_file(left + "/top", recording.after(1, count, by));
      content_of(left + "/base");
      NodePtr seen = open_top(left + "/top", left + "/base", false);
      std::vector<std::byte> content(kDiskBytes);
      world_.run(seen->read(0, content));
      const CheckResult result = world_.run(check_image(*seen, {}));
      world_.close(seen);
      ASSERT_EQ(result.corruptions, 0u) << "after event " << count;
      ASSERT_TRUE(content == wanted) << "after event " << count << " of " << recording.size();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Pairs, CommitCrash,
    testing::Values(Pair{"default", "", ""}, Pair{"small", "cluster_size=4k", ",cluster_size=1k"},
                    Pair{"extended", "cluster_size=16k", ",cluster_size=16k,extended_l2=on"},
                    Pair{"encrypted", "cluster_size=4k,encrypt.format=aes,encrypt.key-secret=s0",
                         ",cluster_size=4k,encrypt.format=aes,encrypt.key-secret=s0",
                         "encrypt.key-secret=s0"}),
    [](const auto& chosen) { return chosen.param.name; });

// --- copies ---

class ConvertCrash : public testing::TestWithParam<Pair> {};

TEST_P(ConvertCrash, WhatWasFlushedIsThere) {
  World world(1);
  Folder folder;
  world.add_secret("s0", "sesame");
  std::mt19937_64 random(23);
  std::vector<std::byte> wanted(kDiskBytes);
  for (int i = 0; i < 12; ++i) {
    const auto piece = random_bytes(random, 1 + random() % 30'000);
    const uint64_t at = random() % (kDiskBytes - piece.size());
    std::copy(piece.begin(), piece.end(), wanted.begin() + static_cast<ptrdiff_t>(at));
  }
  const std::string source_path = folder.file("source");
  store_file(source_path, wanted);
  const std::string path = folder.file("disk");
  world.create(path, "qcow2", kDiskBytes, GetParam().base);
  const bool data_file = GetParam().base.find("data_file=") != std::string::npos;
  Recording recording;
  recording.add(path);
  std::vector<std::pair<std::string, std::string>> files = {{"file", path}};
  if (data_file) {
    recording.add(path + ".data");
    files.push_back({"data-file", path + ".data"});
  }
  const std::string key = GetParam().key.empty() ? "" : "," + GetParam().key;
  NodePtr source = world.open(source_path, "raw", false);
  NodePtr target = open_recorded(world, "qcow2", files, key);
  const CancelSource cancel;
  {
    std::vector<NodePtr> sources(1, source);
    ConvertOptions options;
    options.zero_target = true;
    Convert job(world.context, sources, target, options, cancel);
    world.run(job.run());
  }
  world.run(target->flush());
  size_t flushed = 0;
  for (const auto& [child, name] : files) flushed += recorder_of(*target, child).count();
  world.run(target->close());
  for (size_t i = 0; i < files.size(); ++i) recording.take(i, recorder_of(*target, files[i].first));
  world.close(source);

  const std::string left = folder.file("left");
  std::mt19937_64 chance(3);
  for (size_t count = 0; count <= recording.size(); ++count) {
    for (std::mt19937_64* by : {static_cast<std::mt19937_64*>(nullptr), &chance}) {
      store_file(left, recording.after(0, count, by));
      std::string options = GetParam().key;
      if (data_file) {
        store_file(left + ".data", recording.after(1, count, by));
        options = "data-file.driver=file,data-file.filename=" + left + ".data";
      }
      NodePtr seen = world.open(left, "qcow2", false, options);
      const CheckResult result = world.run(check_image(*seen, {}));
      std::vector<std::byte> content(kDiskBytes);
      world.run(seen->read(0, content));
      world.close(seen);
      ASSERT_EQ(result.corruptions, 0u) << "after event " << count;
      ASSERT_TRUE(count < flushed || content == wanted) << "after event " << count;
      // Nothing but zeroes and what belongs there, ever.
      for (size_t at = 0; at < kDiskBytes; ++at)
        ASSERT_TRUE(content[at] == wanted[at] || content[at] == std::byte{0})
            << "byte " << at << " after event " << count;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Targets, ConvertCrash,
    testing::Values(Pair{"plain", "cluster_size=4k", ""},
                    Pair{"luks",
                         "cluster_size=4k,encrypt.format=luks,encrypt.key-secret=s0,"
                         "encrypt.iter-time=1,encrypt.cipher-alg=aes-128",
                         "", "encrypt.key-secret=s0"},
                    Pair{"data_file", "cluster_size=4k,data_file=@", ""}),
    [](const auto& chosen) { return chosen.param.name; });

}  // namespace
}  // namespace cairn
