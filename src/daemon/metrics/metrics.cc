#include "daemon/metrics/metrics.h"

#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "daemon/daemon.h"

namespace cairn::daemon {

Task<void> MetricsService::start(SocketAddress address) {
  if (server_) invalid("Metrics are served already");
  std::vector<Socket> listeners = co_await daemon_.options().sockets.listen(address);
  socket_path_.clear();
  if (address.kind == SocketAddress::Kind::kUnix && !address.abstract)
    socket_path_ = std::filesystem::absolute(address.path);
  {
    const auto change = co_await daemon_.graph().change();
    daemon_.graph().count_requests();
  }
  server_ = std::make_unique<HttpServer>(std::move(listeners),
                                         [this] { return collect_metrics(daemon_); });
}

Task<void> MetricsService::stop() {
  if (!server_) co_return;
  co_await server_->stop();
  server_.reset();
  if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
}

}  // namespace cairn::daemon
