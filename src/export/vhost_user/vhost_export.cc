#include "export/vhost_user/vhost_export.h"

#include <fmt/core.h>

#include <atomic>
#include <cerrno>
#include <string>

#include "base/error.h"
#include "export/vhost_user/session.h"

namespace cairn::vhost_user {

using namespace std::chrono_literals;

// What one front end may have reported of it.
constexpr unsigned kMostLines = 20;

Export::Export(Context& context, DiskOptions options, std::function<void(std::string_view)> log)
    : context_(context), disk_(std::move(options)), log_(std::move(log)) {}

Export::~Export() = default;

Task<void> Export::serve(Socket socket) {
  std::atomic<unsigned> lines = 0;
  const auto say = [this, &lines](std::string_view text) {
    const unsigned before = lines.fetch_add(1);
    if (!log_ || before > kMostLines) return;
    log_(fmt::format("vhost-user front end: {}", before < kMostLines ? text : "and more"));
  };
  Session session(disk_, context_.runtime(), std::move(socket), say);
  {
    const std::lock_guard lock(mutex_);
    session_ = &session;
  }
  // One that came while the end was asked for may have been overlooked.
  if (stopping_) session.abort();
  std::string trouble;
  try {
    co_await session.run();
  } catch (const std::exception& error) {
    trouble = error.what();
  }
  {
    const std::lock_guard lock(mutex_);
    session_ = nullptr;
  }
  if (!trouble.empty() && !stopping_) say(trouble);
}

void Export::size_changed() {
  const std::lock_guard lock(mutex_);
  if (session_ != nullptr) session_->size_changed();
}

bool Export::connected() const {
  const std::lock_guard lock(mutex_);
  return session_ != nullptr;
}

Task<void> Export::watch(const Socket& listener, CancelSource& stop) {
  while (!stop.requested()) co_await await_ready(stop.descriptor(), POLLIN);
  stopping_ = true;
  wake_waits(listener.fd());
  const std::lock_guard lock(mutex_);
  if (session_ != nullptr) session_->abort();
}

Task<void> Export::run(const Socket& listener, CancelSource& stop) {
  stop.descriptor();
  TaskGroup watcher;
  watcher.spawn(watch(listener, stop));
  while (!stopping_) {
    co_await await_ready(listener.fd(), POLLIN);
    if (stopping_) break;
    Socket socket = try_accept(listener);
    if (socket)
      co_await serve(std::move(socket));
    else if (errno != EAGAIN)
      co_await sleep_for(50ms);  // out of descriptors: the connection waits in the backlog
  }
  co_await watcher.join();
  if (disk_.options().writable) co_await disk_.node().flush();
}

}  // namespace cairn::vhost_user
