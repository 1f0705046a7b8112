// The vhost-user-blk export: a node as the disk of a virtual machine, over memory that the two
// share. docs/vhost-user.md.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string_view>

#include "async/async.h"
#include "block/context.h"
#include "export/vhost_user/disk.h"
#include "net/socket.h"

namespace cairn::vhost_user {

class Session;

// Serves one front end at a time; others wait until it has left. What a front end does wrong ends
// its own connection at worst.
class Export {
 public:
  // LOG takes a line for people about a front end, without a newline, on any worker; it may be
  // empty. Throws kInvalid for options that make no sense.
  Export(Context& context, DiskOptions options, std::function<void(std::string_view)> log);
  ~Export();
  Export(const Export&) = delete;

  // Accepts and serves until STOP is requested; then the front end is cut off, its requests are
  // finished, and the node is flushed. Called once, on any worker. Throws what flushing said.
  Task<void> run(const Socket& listener, CancelSource& stop);
  // Serves one connected front end on the current worker until it leaves; never throws.
  Task<void> serve(Socket socket);
  // The node has another size than before: the guest learns it. From any thread.
  void size_changed();
  // Whether a front end is connected. From any thread.
  bool connected() const;

 private:
  Task<void> watch(const Socket& listener, CancelSource& stop);

  Context& context_;
  Disk disk_;
  const std::function<void(std::string_view)> log_;
  bool stopping_ = false;  // of the worker of run()
  mutable std::mutex mutex_;
  Session* session_ = nullptr;
};

}  // namespace cairn::vhost_user
