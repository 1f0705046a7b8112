#include "daemon/metrics/metrics.h"

#include "base/error.h"
#include "daemon/daemon.h"

namespace cairn::daemon {
namespace {

// Of its sockets.
constexpr const char* kOwner = "metrics";

}  // namespace

Task<void> MetricsService::start(SocketAddress address) {
  if (server_) invalid("Metrics are served already");
  std::vector<Socket> listeners = co_await daemon_.sockets().listen(address, kOwner);
  address_ = std::move(address);
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
  daemon_.sockets().end(kOwner);
}

std::optional<SocketAddress> MetricsService::address() const {
  if (!server_) return std::nullopt;
  return address_;
}

}  // namespace cairn::daemon
