// Two users of the library in one process, at the same time, know nothing of each other.
#include <thread>

#include "operation/check.h"
#include "operation/compare.h"
#include "operation/conversion.h"
#include "operation_support.h"

namespace cairn {
namespace {

using namespace testing_support;

constexpr uint64_t kSmallDiskBytes = 2 << 20;
constexpr const char* kFormats[] = {"raw", "qcow2", "qcow", "qed",       "vdi",
                                    "vpc", "vhdx",  "vmdk", "parallels", "qcow2"};

// Converts a disk with VALUE in it from format to format, and gives what went wrong.
std::string chain_of_formats(unsigned char value) {
  Folder folder;
  World world;
  Asking asking(world);
  std::string last = folder.file("first.raw");
  const std::string first = last;
  return error_of([&] {
    world.create(last, "raw", kSmallDiskBytes);
    fill(world, last, "raw", 65536, 65536, value);
    for (size_t i = 0; i < std::size(kFormats); ++i) {
      operation::ConversionOptions options;
      options.sources.push_back(image(last));
      options.target = folder.file(std::to_string(i) + "." + kFormats[i]);
      options.format = kFormats[i];
      if (options.format == "vpc") options.create_options.set("force_size", "on");
      options.target_cache = *CacheMode::parse("unsafe");
      options.verify = true;
      last = options.target;
      if (i == 0) options.sources.front().format = "raw";
      operation::convert(asking.caller, std::move(options));
    }
    const auto result = world.run(operation::compare(asking.caller, image(first, "raw"),
                                                     image(last), CompareOptions{}, true));
    if (result.kind != CompareResult::Kind::kIdentical) invalid("the disks differ");
    const auto outcome = world.run(operation::check(asking.caller, image(last), {}));
    if (outcome.failure || outcome.result.corruptions != 0) invalid("the image is damaged");
  });
}

TEST(Contexts, WorkSideBySide) {
  std::string errors[2];
  std::thread other([&] { errors[1] = chain_of_formats(2); });
  errors[0] = chain_of_formats(1);
  other.join();
  EXPECT_EQ(errors[0], "");
  EXPECT_EQ(errors[1], "");
}

TEST(Contexts, OneServesSeveralThreads) {
  Folder folder;
  World world;
  const std::string source = folder.file("source.qcow2");
  world.create(source, "qcow2", kSmallDiskBytes);
  fill(world, source, "qcow2", 65536, 65536, 7);
  std::string errors[2];
  const auto work = [&](size_t which) {
    Asking asking(world);
    errors[which] = error_of([&] {
      for (int round = 0; round < 5; ++round) {
        operation::ConversionOptions options;
        options.sources.push_back(image(source, "qcow2"));
        options.target = folder.file(std::to_string(which) + "-" + std::to_string(round));
        options.format = "qcow2";
        options.target_cache = *CacheMode::parse("unsafe");
        options.verify = true;
        operation::convert(asking.caller, std::move(options));
      }
    });
  };
  std::thread other([&] { work(1); });
  work(0);
  other.join();
  EXPECT_EQ(errors[0], "");
  EXPECT_EQ(errors[1], "");
}

}  // namespace
}  // namespace cairn
