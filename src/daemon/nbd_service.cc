#include "daemon/nbd_service.h"

#include "base/error.h"
#include "block/object_types.h"

namespace cairn::daemon {
namespace {

// Of its sockets.
constexpr const char* kOwner = "nbd-server";

}  // namespace

nbd::server::Server& NbdService::server() {
  if (!server_) invalid("NBD server not running");
  return *server_;
}

Task<void> NbdService::start(Options options) {
  if (server_) invalid("NBD server already running");
  nbd::server::ServerOptions settings;
  if (!options.tls_creds.empty())
    settings.tls =
        find_tls_credentials(context_, options.tls_creds, TlsCredentials::Endpoint::kServer);
  settings.authorize = !options.tls_authz.empty();
  settings.authorization = find_authorization(context_, options.tls_authz);
  settings.max_clients = options.most_clients;
  settings.handshake_limit = options.handshake_limit;
  if (log_) {
    settings.log = [log = log_](std::string_view line) {
      log->write_seldom("nbd", "warning", "client-trouble", event_members("message", line));
    };
    settings.on_client = [log = log_](const nbd::server::Export& exported, const std::string& peer,
                                      bool came) {
      Value members = event_members("client", peer);
      members.set("export-name", exported.name());
      log->write("info", came ? "client-came" : "client-left", members);
    };
  }
  std::vector<Socket> listeners = co_await sockets_.listen(options.address, kOwner);
  options_ = std::move(options);
  over_ = std::make_unique<CancelSource>();
  serving_ = std::make_unique<TaskGroup>();
  server_ = std::make_unique<nbd::server::Server>(context_, std::move(settings));
  serving_->spawn(serve(std::move(listeners)));
}

Task<void> NbdService::serve(std::vector<Socket> listeners) {
  try {
    co_await server_->run(std::move(listeners), *over_);
  } catch (const Error& error) {
    context_.warn("NBD server: " + error.message());
  }
}

Task<void> NbdService::stop() {
  if (!server_) co_return;
  over_->request();
  co_await serving_->join();
  server_.reset();
  sockets_.end(kOwner);
}

}  // namespace cairn::daemon
