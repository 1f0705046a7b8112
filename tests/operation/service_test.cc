// What reads one disk for others: serve, list exports, hash, measure, dd, bench; and unmount.
#include <future>
#include <thread>

#include "block/driver.h"
#include "operation/bench.h"
#include "operation/dd.h"
#include "operation/hash.h"
#include "operation/measure.h"
#include "operation/mount.h"
#include "operation/nbd_client.h"
#include "operation/serve.h"
#include "operation_support.h"

namespace cairn {
namespace {

using namespace testing_support;

class Service : public ::testing::Test {
 protected:
  Service() {
    world_.create(name_, "qcow2", kImageBytes);
    fill(world_, name_, "qcow2", 1 << 20, 65536, 3);
  }

  Folder folder_;
  World world_;
  Asking asking_{world_};
  std::string name_ = folder_.file("disk.qcow2");
};

TEST_F(Service, ServesUntilItIsCancelled) {
  const std::string socket = folder_.file("socket");
  std::promise<std::string> ready;
  std::exception_ptr error;
  std::thread server([&] {
    World host;
    operation::Caller caller{.context = host.context, .cancel = asking_.cancel};
    operation::ServePlan plan;
    operation::ImagePlan& image = plan.images.emplace_back();
    image.request.filename = image.title = name_;
    image.name = "disk";
    plan.address = SocketAddress::unix_path(socket);
    plan.server.persistent = true;
    plan.ready = [&](const nbd::server::Server&, const SocketAddress& where) {
      ready.set_value(operation::uri_of(plan, where, "disk"));
    };
    try {
      host.run(operation::serve(caller, plan));
    } catch (...) {
      error = std::current_exception();
      ready.set_exception(error);
    }
  });
  const std::string uri = ready.get_future().get();
  EXPECT_EQ(uri, "nbd+unix:///disk?socket=" + socket);
  const auto list =
      world_.run(operation::list_exports(SocketAddress::unix_path(socket), nullptr, ""));
  ASSERT_EQ(list.exports.size(), 1u);
  EXPECT_EQ(list.exports[0].name, "disk");
  ASSERT_TRUE(list.exports[0].info.has_value());
  EXPECT_EQ(list.exports[0].info->size, kImageBytes);
  EXPECT_EQ(content(world_, uri, "raw", 1 << 20, 1)[0], std::byte{3});
  asking_.cancel.request();
  server.join();
  EXPECT_EQ(error, nullptr);
  EXPECT_FALSE(exists(socket));
}

TEST_F(Service, HashesTheDiskNotTheFile) {
  const std::string raw = folder_.file("disk.raw");
  world_.create(raw, "raw", kImageBytes);
  fill(world_, raw, "raw", 1 << 20, 65536, 3);
  const auto of = [&](const std::string& name, const std::string& format) {
    return world_.run(operation::hash(asking_.caller, image(name, format), {}));
  };
  const auto a = of(name_, "qcow2");
  EXPECT_EQ(a.digest, of(raw, "raw").digest);
  EXPECT_EQ(a.bytes, kImageBytes);
  EXPECT_EQ(a.format, "qcow2");
  EXPECT_NE(error_of([] { operation::check_algorithm("none"); }), "");
}

TEST_F(Service, MeasuresWhatAnImageWillTake) {
  const Driver& qcow2 = *world_.context.registry().find("qcow2");
  const auto result =
      world_.run(operation::measure(world_.context, qcow2, Options{}, image(name_), ""));
  EXPECT_GT(result.fully_allocated, kImageBytes);
  EXPECT_LT(result.required, kImageBytes);
  Options wrong;
  wrong.set("nothing", "1");
  EXPECT_EQ(
      error_of([&] { operation::check_measure_options(world_.context.registry(), qcow2, wrong); }),
      "Invalid parameter 'nothing'");
}

TEST_F(Service, CopiesBlocks) {
  operation::DdOptions options;
  options.source = image(name_);
  options.in = name_;
  options.out = folder_.file("part.raw");
  options.block = 1 << 20;
  options.skip = 1;
  options.count = 2;
  const std::string out = options.out;
  EXPECT_EQ(operation::dd(asking_.caller, std::move(options)), 1u << 20);
  EXPECT_EQ(content(world_, out, "raw", 0, 1)[0], std::byte{3});
}

TEST_F(Service, ABenchUnderAnOverlayLeavesTheImage) {
  BenchOptions options;
  options.write = true;
  options.count = 16;
  options.size = options.step = 4096;
  options.depth = 4;
  bool opened = false;
  OpenRequest request = image(name_);
  request.flags.writable = true;
  const double seconds =
      world_.run(operation::bench(asking_.caller, request, options, true, [&] { opened = true; }));
  EXPECT_TRUE(opened);
  EXPECT_GE(seconds, 0);
  EXPECT_EQ(content(world_, name_, "qcow2", 1 << 20, 1)[0], std::byte{3});
}

TEST_F(Service, UnmountsMountsOfItsOwnOnly) {
  const std::string nothing = folder_.file("disk.qcow2");
  EXPECT_EQ(error_of([&] { operation::unmount(asking_.caller, nothing, std::chrono::seconds(1)); }),
            "Nothing is mounted on '" + nothing + "'");
}

}  // namespace
}  // namespace cairn
