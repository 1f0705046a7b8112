#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/runtime.h"
#include "base/options.h"
#include "block/driver.h"
#include "block/secrets.h"
#include "crypto/key_budget.h"
#include "net/authz.h"
#include "net/tls.h"

namespace cairn {

// What one user of the library works in: the workers, the drivers, named objects. There are no
// globals beside it.
class Context {
 public:
  explicit Context(RuntimeOptions options = {});
  ~Context();

  Runtime& runtime() { return runtime_; }
  Registry& registry() { return registry_; }
  const Registry& registry() const { return registry_; }

  // `--object`: creates TYPE with its properties ("id" among them). Throws kInvalid with QEMU's
  // wording.
  void add_object(std::string_view type, Options properties);
  // Throws "No secret with id 'ID'".
  const Secret& secret(std::string_view id) const { return secrets_.get(id); }
  Secrets& secrets() { return secrets_; }
  // Throws "No TLS credentials with id 'ID'", and when they are for the other ENDPOINT.
  std::shared_ptr<const TlsCredentials> tls_credentials(std::string_view id,
                                                        TlsCredentials::Endpoint endpoint) const;
  // Null when there is no such object: then nobody is allowed.
  std::shared_ptr<const Authorization> authorization(std::string_view id) const;

  // Throws "Throttle group 'ID' does not exist".
  std::shared_ptr<class ThrottleGroup> throttle_group(std::string_view id) const;

  // Names for nodes that have none: "#block" and a number.
  std::string next_node_name();
  // What is said besides results, a line each without its end; by default to nobody. Called from
  // any worker.
  using Listener = std::function<void(std::string_view line)>;
  Listener warn = [](std::string_view) {};  // warnings for people
  Listener tell = [](std::string_view) {};  // reports that are no warnings, such as of a repair
  Listener show = [](std::string_view) {};  // what test filters do, in the order of the output
  // Whether what QEMU's tools have not is offered: formats that it takes for raw disks, options of
  // creation, facts about images. Not under their names.
  bool beyond_qemu = true;

  // Temporary files for what cannot be read in place.
  struct Unpacking {
    std::vector<std::string> spools;     // paths of empty files that were made for it
    bool spools_only = false;            // no others can be made
    std::optional<uint64_t> most_bytes;  // what may be unpacked at all
  };
  Unpacking unpacking;
  // What deriving the key of an image may cost, for images that are opened from then on.
  KeyBudget key_budget;
  // Asked now and then by long work of drivers; null: nobody cancels.
  const class CancelSource* cancel = nullptr;
  // Called now and then, from any worker, by long work of drivers and jobs that is no part of a
  // copy: what is done ("unpack", "check", "preallocate", …), how much of it, and how much
  // altogether in a unit of its own (0: not known). Null: nobody asks.
  std::function<void(std::string_view phase, uint64_t done, uint64_t total)> progress;

 private:
  // The objects of src/net; false when TYPE is none of them.
  bool add_net_object(std::string_view type, const Options& properties);

  Runtime runtime_;
  Registry registry_;
  Secrets secrets_;
  std::map<std::string, std::shared_ptr<const TlsCredentials>, std::less<>> tls_;
  std::map<std::string, std::shared_ptr<const Authorization>, std::less<>> authorizations_;
  std::map<std::string, std::shared_ptr<class ThrottleGroup>, std::less<>> throttle_groups_;
  std::atomic<unsigned> next_node_{100};
};

}  // namespace cairn
