#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "async/sync.h"
#include "async/task.h"
#include "protocol/gluster/errand.h"
#include "protocol/gluster/gfapi_library.h"
#include "protocol/gluster/location.h"

namespace cairn {
class Context;
}

namespace cairn::gluster {

struct Settings {
  int debug = 4;  // log level, 0 … 9
  std::string log_file = "-";
  std::chrono::seconds timeout{60};  // for a request
};

// The volumes that were connected to. A connection costs much, is good for all files and workers,
// and stays until the process ends: to end it takes the library ten seconds.
class Volumes {
 public:
  // The connection to the volume of LOCATION. Throws with QEMU's words.
  Task<glfs_t*> connect(Context& context, Location location, Settings settings);
  Watch& watch() { return watch_; }

 private:
  using Key = std::pair<std::string, std::vector<Server>>;
  struct Slot {
    Mutex opening;
    glfs_t* volume = nullptr;
  };

  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Slot>> slots_;
  Watch watch_;
};

}  // namespace cairn::gluster
