#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/runtime.h"
#include "base/options.h"
#include "block/config_file.h"
#include "block/driver.h"
#include "block/profile.h"
#include "block/rate_limit.h"
#include "block/secrets.h"
#include "block/server_watch.h"
#include "crypto/key_budget.h"

namespace cairn {

// What one user of the library works in: the workers, the drivers, named objects. There are no
// other globals.
class Context {
 public:
  explicit Context(RuntimeOptions options = {});
  ~Context();

  Runtime& runtime() { return runtime_; }
  Registry& registry() { return registry_; }
  const Registry& registry() const { return registry_; }

  // `--object`: creates TYPE with its properties ("id" among them). Throws kInvalid with QEMU's
  // wording. object_types.h has the types, and finds what was made.
  void add_object(std::string_view type, Options properties);
  // The same for a type that only one program has; it outlives the object.
  void add_object(const ObjectType& type, const Options& properties) {
    objects_.add(type, properties);
  }
  // False when there is none of that ID.
  bool remove_object(std::string_view id) { return objects_.remove(id); }
  const Objects& objects() const { return objects_; }
  // Throws "No secret with id 'ID'".
  const Secret& secret(std::string_view id) const { return find_secret(objects_, id); }
  Secrets& secrets() { return secrets_; }

  // Names for nodes that have none: "#block" and a number.
  std::string next_node_name();
  // What is said besides results, a line each without its end; by default to nobody. Called from
  // any worker.
  using Listener = std::function<void(std::string_view line)>;
  Listener warn = [](std::string_view) {};  // warnings for people
  Listener tell = [](std::string_view) {};  // reports that are no warnings, such as of a repair
  Listener show = [](std::string_view) {};  // what test filters do, in the order of the output
  // Reports that two disks that a filter compares are not alike, and remembers it. From any worker.
  void tell_difference(std::string_view line) {
    disks_differ_.store(true);
    tell(line);
  }
  bool disks_differ() const { return disks_differ_.load(); }
  Profile profile;

  // Where large temporary files are made.
  std::string temporary_directory = "/var/tmp";
  // Where the user keeps settings, such as certificates for NBD; empty: nowhere.
  std::string home_directory;
  // Variables of the environment that drivers read: those of docs/environment.md that begin with
  // "AWS_".
  std::map<std::string, std::string, std::less<>> variables;
  // What configuration files say of disks on servers.
  std::vector<ConfigSection> configuration;
  // Temporary files for what cannot be read in place.
  struct Unpacking {
    std::vector<std::string> spools;     // paths of empty files that were made for it
    bool spools_only = false;            // no others can be made
    std::optional<uint64_t> most_bytes;  // what may be unpacked at all

    // One of SPOOLS, which is among them no longer; empty when none is left. Any thread may call it
    // once images are opened.
    std::string take_spool();

   private:
    std::mutex taking_;
  };
  Unpacking unpacking;
  // Where what is read of images on servers is kept, by the filter "disk-cache".
  struct ServerCache {
    std::string directory;         // empty: nowhere
    std::optional<uint64_t> size;  // bytes; nothing: the filter's default
    bool trust_names = false;      // also where the server does not say when a disk changes
  };
  ServerCache server_cache;
  // The servers of open images: who wants to say that one is waited for asks here.
  Servers servers;
  // How fast all storage together is read and written: what protocols transfer. Null: no limit.
  std::unique_ptr<RateLimit> read_limit, write_limit;
  // Disks on servers are not opened: this process must not reach them.
  bool local_only = false;
  // What deriving the key of an image may cost, for images that are opened from then on.
  KeyBudget key_budget;
  // Asked now and then by long work of drivers; null: nobody cancels.
  const class CancelSource* cancel = nullptr;
  // Called now and then, from any worker, by long work of drivers and jobs that is no part of a
  // copy: what is done ("unpack", "check", "preallocate", …), how much of it, and how much
  // altogether in a unit of its own (0: not known). Null: nobody asks.
  std::function<void(std::string_view phase, uint64_t done, uint64_t total)> progress;

 private:
  Runtime runtime_;
  Registry registry_;
  Objects objects_;
  Secrets secrets_{objects_};
  std::atomic<unsigned> next_node_{100};
  std::atomic<bool> disks_differ_{false};
};

}  // namespace cairn
