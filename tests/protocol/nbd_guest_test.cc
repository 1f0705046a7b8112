// NBD disks of a program with threads: a connection does not depend on the thread that made it.
#include <atomic>
#include <thread>

#include "async/async.h"
#include "export/nbd/server.h"
#include "support.h"

namespace cairn {
namespace {

using namespace testing_support;

constexpr uint64_t kSize = 1 << 20;
constexpr unsigned kThreads = 6;

// A server in a Context and on a thread of its own.
class ServerThread {
 public:
  ServerThread(const std::string& image, const std::string& socket, bool multi_conn) {
    node_ = world_.open(image, "raw", true);
    nbd::server::ServerOptions options;
    nbd::server::ExportOptions disk{.name = "e",
                                    .description = "",
                                    .node = node_,
                                    .offset = 0,
                                    .size = kSize,
                                    .writable = true,
                                    .multi_conn = multi_conn,
                                    .allocation_depth = false,
                                    .bitmaps = {}};
    options.exports.push_back(std::make_shared<const nbd::server::Export>(std::move(disk)));
    server_ = std::make_unique<nbd::server::Server>(world_.context, std::move(options));
    SocketAddress address;
    address.kind = SocketAddress::Kind::kUnix;
    address.path = socket;
    auto listeners = world_.run(listen_sockets(address));
    thread_ = std::thread([this, sockets = std::move(listeners)]() mutable {
      world_.run(server_->run(std::move(sockets), stop_));
    });
  }
  ~ServerThread() {
    stop_.request();
    thread_.join();
    server_.reset();
    world_.close(node_);
  }

 private:
  World world_;
  NodePtr node_;
  CancelSource stop_;
  std::unique_ptr<nbd::server::Server> server_;
  std::thread thread_;
};

class NbdGuest : public testing::TestWithParam<bool> {};

TEST_P(NbdGuest, OpenedByOneThreadReadByOthers) {
  Folder folder;
  World world;
  world.create(folder.file("disk"), "raw", kSize);
  const ServerThread server(folder.file("disk"), folder.file("s"), GetParam());
  NodePtr node;
  std::thread([&] {
    OpenRequest request;
    request.filename = "nbd+unix:///e?socket=" + folder.file("s");
    request.format = "raw";
    request.flags.writable = true;
    node = world.run(open_node(world.context, std::move(request)));
  }).join();
  std::atomic<unsigned> wrong{0};
  const auto use = [&](unsigned number) {
    std::mt19937_64 random(number);
    const uint64_t begin = number * (kSize / kThreads / 512 * 512);
    for (unsigned round = 0; round < 30; ++round) {
      const auto bytes = random_bytes(random, 4096);
      std::vector<std::byte> back(bytes.size());
      world.run(node->write(begin + round * 4096, bytes));
      world.run(node->read(begin + round * 4096, back));
      wrong += back != bytes;
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back(use, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  // Residents use connections of their own where the server allows it.
  world.run([](Runtime& runtime, NodePtr disk) -> Task<void> {
    TaskGroup group;
    for (unsigned i = 0; i < 8; ++i)
      group.spawn_on(runtime.worker(i % 2), [](NodePtr one, uint64_t at) -> Task<void> {
        std::vector<std::byte> back(4096);
        co_await one->read(at, back);
      }(disk, i * 4096));
    co_await group.join();
  }(world.context.runtime(), node));
  std::thread([&] { world.close(node); }).join();
}

INSTANTIATE_TEST_SUITE_P(Connections, NbdGuest, testing::Bool(),
                         [](const auto& chosen) { return chosen.param ? "Several" : "One"; });

}  // namespace
}  // namespace cairn
