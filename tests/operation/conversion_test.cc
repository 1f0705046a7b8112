#include "operation/conversion.h"

#include "operation_support.h"

namespace cairn {
namespace {

using namespace testing_support;
using operation::ConversionOptions;

class Conversion : public ::testing::Test {
 protected:
  Conversion() {
    world_.create(source_, "qcow2", kImageBytes);
    fill(world_, source_, "qcow2", 1 << 20, 65536, 0x5a);
  }
  ConversionOptions to(const std::string& name, const std::string& format) {
    ConversionOptions options;
    options.sources.push_back(image(source_, "qcow2"));
    options.target = folder_.file(name);
    options.format = format;
    options.target_cache = *CacheMode::parse("unsafe");
    return options;
  }

  Folder folder_;
  World world_;
  Asking asking_{world_};
  std::string source_ = folder_.file("source.qcow2");
};

TEST_F(Conversion, CopiesAndVerifies) {
  ConversionOptions options = to("target.vhdx", "vhdx");
  options.verify = true;
  options.hash = "sha256";
  const std::string target = options.target;
  const auto done = operation::convert(asking_.caller, std::move(options));
  EXPECT_EQ(done.format, "vhdx");
  EXPECT_EQ(done.bytes, kImageBytes);
  EXPECT_EQ(done.digest.size(), 64u);
  EXPECT_EQ(asking_.phases, std::vector<std::string>{"verify"});
  EXPECT_EQ(asking_.last_done, kImageBytes);
  EXPECT_EQ(content(world_, target, "vhdx", 1 << 20, 65536),
            std::vector<std::byte>(65536, std::byte{0x5a}));
}

TEST_F(Conversion, KeepsWhatExists) {
  ConversionOptions options = to("target.raw", "raw");
  const std::string target = options.target;
  std::ofstream(target) << "precious";
  EXPECT_NE(error_of([&] { operation::convert(asking_.caller, options); }), "");
  EXPECT_EQ(std::filesystem::file_size(target), 8u);
  options.overwrite = true;
  operation::convert(asking_.caller, std::move(options));
  EXPECT_EQ(std::filesystem::file_size(target), kImageBytes);
}

TEST_F(Conversion, ACancelledTargetGoes) {
  ConversionOptions options = to("target.qcow2", "qcow2");
  const std::string target = options.target;
  asking_.cancel.request();
  try {
    operation::convert(asking_.caller, std::move(options));
    FAIL() << "the conversion was not cancelled";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCancelled);
  }
  EXPECT_FALSE(exists(target));
}

TEST_F(Conversion, APresetChoosesTheImage) {
  const operation::Preset& azure = operation::find_preset("azure");
  ConversionOptions options = to("target.vhd", "vpc");
  options.image =
      &operation::choose_image(azure, options.target, "vpc", {}, false, options.create_options);
  options.preset = &azure;
  const auto done = operation::convert(asking_.caller, std::move(options));
  EXPECT_EQ(done.format, "vpc");
  EXPECT_EQ(done.bytes, kImageBytes);
  Options wrong;
  wrong.set("subformat", "dynamic");
  EXPECT_EQ(error_of([&] { operation::choose_image(azure, "x.vhd", "vpc", {}, false, wrong); }),
            "Azure takes images with subformat=fixed only");
  EXPECT_NE(error_of([] { operation::find_preset("nobody"); }), "");
}

}  // namespace
}  // namespace cairn
