// Power is lost while key slots change: some passphrase that was good opens the image, at every
// moment, and what was flushed is there.
#include <cstring>

#include "block/capabilities/amendable.h"
#include "crash/replay.h"

namespace cairn {
namespace {

using namespace testing_support;

class KeySlots : public testing::TestWithParam<const char*> {
 protected:
  KeySlots() {
    world_.add_secret("s0", "the first");
    world_.add_secret("s1", "the second");
  }
  bool luks() const { return std::string(GetParam()) == "luks"; }
  std::string key(const char* name) const { return (luks() ? "" : "encrypt.") + std::string(name); }

  void record() {
    const std::string path = folder_.file("disk");
    std::string options;
    for (const char* one :
         {"key-secret=s0", "iter-time=0", "cipher-alg=aes-128", "cipher-mode=cbc"})
      options += key(one) + ",";
    world_.create(path, GetParam(), kSize,
                  options + (luks() ? "key-secret=s0" : "cluster_size=4k,encrypt.format=luks"));
    start_ = load_file(path);
    NodePtr node =
        open_recorded(world_, GetParam(), {{"file", path}}, "," + key("key-secret") + "=s0");
    const RecordNode& recorder = recorder_of(*node);
    std::mt19937_64 random(9);
    content_ = random_bytes(random, kSize);
    world_.run(node->write(0, content_));
    world_.run(node->flush());
    written_ = recorder.count();
    amend(*node, {{"state", "active"}, {"new-secret", "s1"}, {"iter-time", "0"}});
    added_ = recorder.count();
    amend(*node, {{"state", "inactive"}, {"old-secret", "s0"}});
    events_ = recorder.events();
    world_.run(node->close());
  }

  void amend(Node& node, std::initializer_list<std::pair<const char*, const char*>> options) {
    AmendRequest request;
    for (const auto& [name, value] : options) request.options.set(key(name), value);
    world_.run(amend_image(node, std::move(request)));
  }

  // Whether SECRET opens the file; then the content is right.
  bool opens(const std::string& path, const std::string& secret) {
    NodePtr node;
    try {
      node = world_.open(path, GetParam(), false, key("key-secret") + "=" + secret);
    } catch (const Error& error) {
      EXPECT_NE(error.message().find("Invalid password"), std::string::npos) << error.message();
      return false;
    }
    std::vector<std::byte> content(kSize);
    world_.run(node->read(0, content));
    EXPECT_TRUE(content == content_);
    world_.close(node);
    return true;
  }

  static constexpr uint64_t kSize = 256 << 10;
  World world_{1};
  Folder folder_;
  std::vector<std::byte> start_, content_;
  std::vector<RecordedEvent> events_;
  size_t written_ = 0;
  size_t added_ = 0;
};

TEST_P(KeySlots, SomePassphraseOpensTheImageAtEveryMoment) {
  record();
  ASSERT_GT(events_.size(), added_ + 80);
  std::mt19937_64 chance(3);
  for (size_t count = written_; count <= events_.size(); ++count) {
    // The passes over what was erased are all alike.
    if (count > added_ + 6 && count + 2 < events_.size()) continue;
    for (int round = 0; round < 3; ++round) {
      const std::string path = folder_.file("crashed");
      store_file(path, replay(start_, events_, count, &chance));
      const bool first = opens(path, "s0");
      const bool second = opens(path, "s1");
      EXPECT_TRUE(first || count > added_) << "after event " << count;
      EXPECT_TRUE(second || count < added_) << "after event " << count;
      EXPECT_FALSE(first && count == events_.size());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, KeySlots, testing::Values("luks", "qcow2"),
                         [](const auto& chosen) { return std::string(chosen.param); });

}  // namespace
}  // namespace cairn
