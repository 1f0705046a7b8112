// Two threads take every format through its operations at once: each in a Context of its own, as
// two libraries of one process would, and both in one.
#include <cstring>
#include <thread>

#include "async/async.h"
#include "block/capabilities/checkable.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

struct Image {
  const char* format;
  const char* options = "";
  bool check = true;
  bool resize = true;
};

constexpr Image kImages[] = {{"raw", "", false},
                             {"qcow2"},
                             {"qcow2", "compat=0.10,cluster_size=4k"},
                             {"qcow2", "extended_l2=on"},
                             {"qcow2", "lazy_refcounts=on,data_file=@"},
                             {"qcow", "", false, false},
                             {"qed"},
                             {"vdi", "", true, false},
                             {"vhdx"},
                             {"vpc", "force_size=on", true, false},
                             {"vmdk", "", true, false},
                             {"parallels", "", true, false}};

// One disk through random operations, against a model in memory. The first difference, or nothing.
class Pass {
 public:
  Pass(World& world, std::string path, const Image& image, unsigned seed)
      : world_(world), path_(std::move(path)), image_(image), random_(seed) {}

  std::string run() {
    constexpr uint64_t kSize = (2 << 20) + 512 * 3;
    world_.create(path_, image_.format, kSize, image_.options);
    model_.assign(kSize, std::byte{0});
    open(true);
    model_.resize(node_->length());
    for (unsigned step = 0; step < 60 && wrong_.empty(); ++step) {
      change();
      if (step % 20 == 19) {
        world_.close(node_);
        open(true);
        compare("after opening again");
      }
    }
    if (image_.resize) {
      world_.run(node_->resize({.length = model_.size() + (1 << 20)}));
      model_.resize(model_.size() + (1 << 20));
    }
    extents();
    world_.close(node_);
    open(false);
    compare("at the end");
    if (image_.check) check();
    world_.close(node_);
    return wrong_;
  }

 private:
  void open(bool writable) { node_ = world_.open(path_, image_.format, writable); }
  void fail(const std::string& what) {
    if (wrong_.empty()) wrong_ = std::string(image_.format) + " " + image_.options + ": " + what;
  }
  void change() {
    const uint64_t length = 1 + random_() % 40'000;
    const uint64_t offset = random_() % (model_.size() - length);
    switch (random_() % 4) {
      case 0: {
        world_.run(node_->write_zeroes(offset, length, {.may_unmap = random_() % 2 == 0}));
        std::memset(model_.data() + offset, 0, length);
        break;
      }
      case 1: {
        std::vector<std::byte> bytes(length);
        world_.run(node_->read(offset, bytes));
        if (std::memcmp(bytes.data(), model_.data() + offset, length) != 0) fail("a read");
        break;
      }
      default: {
        const auto bytes = random_bytes(random_, length);
        world_.run(node_->write(offset, bytes));
        std::memcpy(model_.data() + offset, bytes.data(), length);
        break;
      }
    }
    if (random_() % 10 == 0) world_.run(node_->flush());
  }
  void compare(const std::string& when) {
    std::vector<std::byte> content(model_.size());
    world_.run(node_->read(0, content));
    if (content != model_) fail("the content " + when);
  }
  void extents() {
    for (uint64_t at = 0; at < node_->length();) {
      const Extent extent = world_.run(node_->extent_at(at, node_->length() - at));
      if (extent.length == 0) return fail("an extent without length");
      for (uint64_t i = at; extent.zero && i < at + extent.length; ++i)
        if (model_[i] != std::byte{0}) return fail("an extent that is not zero");
      at += extent.length;
    }
  }
  void check() {
    CheckRequest request;
    request.report = [&](std::string_view line) { fail(std::string(line)); };
    const CheckResult result = world_.run(check_image(*node_, request));
    if (result.corruptions + result.leaks + result.check_errors != 0) fail("a check");
  }

  World& world_;
  const std::string path_;
  const Image image_;
  std::mt19937_64 random_;
  NodePtr node_;
  std::vector<std::byte> model_;
  std::string wrong_;
};

void pass_all(World& world, const std::string& name, unsigned seed) {
  const Folder folder;
  for (const Image& image : kImages) {
    const std::string wrong = Pass(world, folder.file(name + image.format), image, ++seed).run();
    EXPECT_EQ(wrong, "");
  }
}

TEST(SideBySide, TwoContexts) {
  World one, other;
  std::thread first([&] { pass_all(one, "a", 100); });
  std::thread second([&] { pass_all(other, "b", 200); });
  first.join();
  second.join();
}

TEST(SideBySide, TwoThreadsInOneContext) {
  World world;
  std::thread first([&] { pass_all(world, "a", 300); });
  std::thread second([&] { pass_all(world, "b", 400); });
  first.join();
  second.join();
}

// A Context that goes does not disturb the other one.
TEST(SideBySide, OneComesAndGoesWhileTheOtherWorks) {
  World stays;
  std::thread first([&] { pass_all(stays, "a", 500); });
  for (unsigned round = 0; round < 10; ++round) {
    World goes;
    const Folder folder;
    EXPECT_EQ(Pass(goes, folder.file("b"), {"qcow2"}, round).run(), "");
  }
  first.join();
}

}  // namespace
}  // namespace cairn
