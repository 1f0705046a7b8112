#include "base/arith.h"
#include "base/error.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/exports.h"
#include "export/vhost_user/vhost_export.h"

namespace cairn::daemon {
namespace {

// A node's disk as that of a virtual machine.
class VhostUserExport : public LiveExport {
 public:
  VhostUserExport(std::string id, RootPtr root, vhost_user::DiskOptions options, Socket listener,
                  ListeningSockets& sockets)
      : LiveExport(std::move(id), "vhost-user-blk", root),
        listener_(std::move(listener)),
        sockets_(sockets),
        exported_(root->context(), std::move(options), log(root->context(), this->id())) {
    serving_.spawn(serve());
  }
  ~VhostUserExport() override { sockets_.end(owner(id())); }
  // Of its socket.
  static std::string owner(const std::string& id) { return "export " + id; }

  // A machine does not keep its disk: it finds out that it has none.
  bool in_use() const override { return false; }
  void request_shutdown() override { over_.request(); }
  Task<void> ended() override {
    co_await serving_.join();
    sockets_.end(owner(id()));
  }
  void resized() override { exported_.size_changed(); }

 private:
  static std::function<void(std::string_view)> log(Context& context, std::string id) {
    return [&context, id = std::move(id)](std::string_view text) {
      context.warn("export '" + id + "': " + std::string(text));
    };
  }
  Task<void> serve() {
    try {
      co_await exported_.run(listener_, over_);
    } catch (const Error& error) {
      root()->context().warn("export '" + id() + "': " + error.message());
    }
  }

  Socket listener_;
  ListeningSockets& sockets_;
  vhost_user::Export exported_;
  CancelSource over_;
  TaskGroup serving_;
};

SocketAddress address_of(const Value& arguments) {
  return SocketAddress::from_options(Options::from_value(*arguments.find("addr")));
}

Task<void> check_vhost_user(Daemon&, Value arguments) {
  const SocketAddress address = address_of(arguments);
  if (address.kind != SocketAddress::Kind::kUnix && address.kind != SocketAddress::Kind::kFd)
    invalid("Only socket address types 'unix' and 'fd' are supported");
  if (address.descriptor.find_first_not_of("0123456789") != std::string::npos)
    invalid("only QEMU supports file descriptor passing");
  const int64_t block = number_of(arguments, "logical-block-size", 512);
  if (block < 512 || block > (2 << 20) || !is_power_of_two(static_cast<uint64_t>(block)))
    invalid("parameter logical-block-size must be a power of 2 between 512 and 2097152");
  if (number_of(arguments, "num-queues", 1) == 0) invalid("num-queues must be greater than 0");
  co_return;
}

Task<std::unique_ptr<LiveExport>> make_vhost_user(ExportRequest request) {
  const SocketAddress address = address_of(request.arguments);
  std::vector<Socket> listeners =
      co_await request.daemon.sockets().listen(address, VhostUserExport::owner(request.id));
  vhost_user::DiskOptions options;
  options.node = request.root;
  options.writable = request.writable;
  options.write_through = flag_of(request.arguments, "writethrough", false);
  options.block_bytes =
      static_cast<uint32_t>(number_of(request.arguments, "logical-block-size", 512));
  options.queues = static_cast<uint16_t>(number_of(request.arguments, "num-queues", 1));
  co_return std::make_unique<VhostUserExport>(request.id, request.root, std::move(options),
                                              std::move(listeners.front()),
                                              request.daemon.sockets());
}

}  // namespace

ExportType vhost_user_export_type() {
  return {.name = "vhost-user-blk",
          .resizes = false,
          .follows_size = true,
          .check = check_vhost_user,
          .make = make_vhost_user};
}

}  // namespace cairn::daemon
