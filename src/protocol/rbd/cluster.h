#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "protocol/rbd/location.h"
#include "protocol/rbd/rbd_library.h"

namespace cairn::rbd {

// How one gets into a cluster.
struct Access {
  std::optional<std::string> conf;  // a file; else it is searched for in the usual places
  std::string user;                 // without "client."; empty: admin
  std::vector<Setting> settings;
  std::string monitors;  // mon_host; empty: as the configuration says
  std::string auth;      // auth_client_required; empty: as the configuration says
  std::string key;       // in base64; empty: of the keyring
  bool cached = true;    // librbd may keep what was written until the next flush
  unsigned timeout = 0;  // seconds after which what has no answer fails; 0: never
  bool explains = true;  // errors say what to do next
};

// A connection to a cluster. All images of the process that are reached in the same way share one:
// each has a dozen threads.
class Cluster {
 public:
  // Connects, or gives the connection that there is. Blocks, for seconds where no monitor answers;
  // any thread. Throws QEMU's words.
  static std::shared_ptr<Cluster> get(const Access& access);
  // Blocks briefly.
  ~Cluster();
  Cluster(const Cluster&) = delete;

  rados_t handle() const { return handle_; }

 private:
  Cluster() = default;
  void connect(const Access& access);
  void configure(const Access& access);
  void set(const std::string& key, const std::string& value);
  void bound_waiting(unsigned seconds);

  std::mutex connecting_;
  rados_t handle_ = nullptr;
};

// A pool of a cluster, or a namespace in it.
class RadosPool {
 public:
  // Blocks. Throws QEMU's words.
  RadosPool(const Access& access, const std::string& pool, const std::string& name_space);
  ~RadosPool();
  RadosPool(const RadosPool&) = delete;

  rados_ioctx_t handle() const { return handle_; }

 private:
  const std::shared_ptr<Cluster> cluster_;
  rados_ioctx_t handle_ = nullptr;
};

// Throws "WHAT: the system's words" when RESULT, of a function of the library, is an error.
void check(int result, const std::string& what);

}  // namespace cairn::rbd
