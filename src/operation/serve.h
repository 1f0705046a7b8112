#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "block/open.h"
#include "export/nbd/server.h"
#include "net/address.h"
#include "operation/caller.h"

namespace cairn::operation {

// One image to be served.
struct ImagePlan {
  OpenRequest request;
  std::string title;  // how messages name it
  std::string name;   // of the export
  std::string description;
  bool snapshot = false;                     // below a temporary overlay
  std::optional<std::string> load_snapshot;  // show this internal snapshot, read-only
  uint64_t offset = 0;
  bool exact_size = false;  // not rounded to sectors
  bool allocation_depth = false;
  std::vector<std::string> bitmaps;
  // Completes the request once the server listens; may throw. None: it is complete.
  std::function<void(OpenRequest&)> complete;
  // The words for an error of opening; none: as it is.
  std::function<Error(const Error&)> explain;
};

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
