#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "export/nbd/server.h"
#include "net/address.h"
#include "operation/caller.h"
#include "operation/served_image.h"

namespace cairn::operation {

// What is served, where, and how.
struct ServePlan {
  std::vector<ImagePlan> images;
  SocketAddress address;
  std::string socket_label;           // SELinux's, of the Unix socket; empty: the usual one
  bool remove_socket = true;          // the path of a Unix socket goes at the end
  unsigned shared = 1;                // clients at a time; 0: any number
  nbd::server::ServerOptions server;  // exports are filled in by serve()
  std::string pid_file;
  bool quiet = false;  // errors only
  // Called once clients can connect: with the server, and where it listens.
  std::function<void(const nbd::server::Server&, const SocketAddress&)> ready;
  // Called twice a second while serving; none: not at all.
  std::function<void(const nbd::server::Server&)> tick;
  // Serves this connected socket alone rather than listening.
  int connected = -1;
};

// Listens, opens the images, serves until CALLER cancels or the server ends by itself, and closes
// everything. Throws the first error.
Task<void> serve(Caller& caller, ServePlan plan);

// The URI by which clients reach the export NAME of a server that listens at WHERE.
std::string uri_of(const ServePlan& plan, const SocketAddress& where, const std::string& name);

// Opens one image and gives the export that shows it; the node goes to NODES for closing.
Task<std::shared_ptr<const nbd::server::Export>> open_export(Caller& caller, const ImagePlan& plan,
                                                             unsigned shared,
                                                             std::vector<NodePtr>& nodes);

}  // namespace cairn::operation
