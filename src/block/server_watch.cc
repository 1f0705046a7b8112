#include "block/server_watch.h"

#include <algorithm>
#include <utility>

#include "base/options.h"
#include "block/driver.h"

namespace cairn {

std::optional<ServerWatch::Clock::time_point> ServerWatch::waiting_since() const {
  if (outstanding_.load(std::memory_order_relaxed) == 0) return std::nullopt;
  return Clock::time_point(Clock::duration(changed_.load(std::memory_order_relaxed)));
}

ServerRequest::ServerRequest(ServerWatch* watch) : watch_(watch) {
  // The time comes first: a request that is seen is never taken for an old one.
  if (watch_ == nullptr) return;
  if (watch_->outstanding_.load(std::memory_order_relaxed) == 0) watch_->touch();
  watch_->outstanding_.fetch_add(1, std::memory_order_release);
}

ServerRequest::~ServerRequest() {
  if (watch_ == nullptr) return;
  watch_->touch();
  watch_->outstanding_.fetch_sub(1, std::memory_order_relaxed);
}

Reconnecting::Reconnecting(std::shared_ptr<ServerWatch> watch) : watch_(std::move(watch)) {
  if (watch_) watch_->repairs_.fetch_add(1, std::memory_order_relaxed);
}

Reconnecting::~Reconnecting() {
  if (watch_) watch_->repairs_.fetch_sub(1, std::memory_order_relaxed);
}

std::shared_ptr<ServerWatch> Servers::add(std::string name) {
  auto watch = std::make_shared<ServerWatch>(std::move(name));
  std::function<void()> first;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(watches_, [](const auto& each) { return each.expired(); });
    watches_.push_back(watch);
    first = std::exchange(first_, nullptr);
  }
  if (first) first();
  return watch;
}

std::optional<Servers::Waiting> Servers::longest() const {
  const std::lock_guard lock(mutex_);
  const auto now = ServerWatch::Clock::now();
  std::optional<Waiting> longest;
  ServerWatch::Clock::duration most{-1};
  for (const auto& each : watches_) {
    const std::shared_ptr<ServerWatch> watch = each.lock();
    if (!watch) continue;
    const auto since = watch->waiting_since();
    if (!since) continue;
    // A request may have ended since NOW.
    const auto time = std::max(now - *since, ServerWatch::Clock::duration::zero());
    if (time <= most) continue;
    most = time;
    longest = {.server = watch->name(),
               .time = std::chrono::duration_cast<std::chrono::milliseconds>(time),
               .reconnecting = watch->reconnecting()};
  }
  return longest;
}

void Servers::on_first(std::function<void()> first) {
  const std::lock_guard lock(mutex_);
  first_ = std::move(first);
}

namespace {

// HOST[:PORT] of "scheme://user:password@HOST:PORT/path?query" and "scheme:HOST:PORT:…"; empty when
// URL is none.
std::string authority_of(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string::npos) {
    const size_t colon = url.find(':');
    const size_t end = url.find(':', url.find(':', colon + 1) + 1);
    return colon == std::string::npos ? "" : url.substr(colon + 1, end - colon - 1);
  }
  std::string rest = url.substr(scheme + 3);
  rest.resize(std::min(rest.find_first_of("/?#"), rest.size()));
  const size_t user = rest.rfind('@');
  return user == std::string::npos ? rest : rest.substr(user + 1);
}

}  // namespace

// Reading marks options as used: OPTIONS is a copy.
std::string server_name(const Driver& driver, Options options) {
  for (const char* key : {"endpoint", "url", "filename"}) {
    const std::string host = authority_of(options.string(key).value_or(""));
    if (!host.empty()) return host;
  }
  for (const std::string start : {"server.", "server.0.", ""}) {
    if (const auto host = options.string(start + "host"); host && !host->empty()) {
      const auto port = options.string(start + "port");
      const bool numeric = host->find(':') != std::string::npos;
      return (numeric ? "[" + *host + "]" : *host) + (port ? ":" + *port : "");
    }
    if (const auto path = options.string(start + "path"); path && !path->empty()) return *path;
  }
  if (const auto portal = options.string("portal"); portal && !portal->empty()) return *portal;
  return "the " + std::string(driver.name()) + " server";
}

}  // namespace cairn
