#include "protocol/rbd/cluster.h"

#include <cerrno>
#include <cstdlib>
#include <map>

#include "base/error.h"

namespace cairn::rbd {
namespace {

// What makes two ways into a cluster the same.
std::string key_of(const Access& access) {
  std::vector<Setting> all = access.settings;
  all.insert(all.end(), {{"*conf", access.conf.value_or("")},
                         {"*default", access.conf ? "no" : "yes"},
                         {"*user", access.user},
                         {"*monitors", access.monitors},
                         {"*auth", access.auth},
                         {"*key", access.key},
                         {"*cached", access.cached ? "yes" : "no"},
                         {"*timeout", std::to_string(access.timeout)}});
  return join_settings(all);
}

// Adds to ERROR, of connecting, what to look at.
void explain(Error& error, const Access& access) {
  switch (error.error_number()) {
    case ENOENT:
      error.hint(
          "No monitor is known: name a configuration (conf), in the variable CEPH_CONF as well, or "
          "the monitors (mon_host).");
      break;
    case EACCES:
    case EPERM:
    case EINVAL:
      error.hint("The user is client." + (access.user.empty() ? "admin" : access.user) +
                 "; the key is that of the keyring of the configuration, or of key-secret.");
      break;
    case ETIMEDOUT:
      error.hint("No monitor of the cluster answers.");
      break;
    default:
      break;
  }
}

}  // namespace

void check(int result, const std::string& what) {
  if (result < 0) throw Error::system(-result, what);
}

std::shared_ptr<Cluster> Cluster::get(const Access& access) {
  // Not destroyed: a call that nothing waits for any more may still be in here when the process
  // ends.
  static auto& mutex = *new std::mutex;
  static auto& all = *new std::map<std::string, std::weak_ptr<Cluster>>;
  std::shared_ptr<Cluster> cluster;
  {
    const std::lock_guard lock(mutex);
    std::erase_if(all, [](const auto& each) { return each.second.expired(); });
    std::weak_ptr<Cluster>& known = all[key_of(access)];
    cluster = known.lock();
    if (!cluster) known = cluster = std::shared_ptr<Cluster>(new Cluster);
  }
  const std::lock_guard lock(cluster->connecting_);
  if (cluster->handle_ == nullptr) cluster->connect(access);
  return cluster;
}

Cluster::~Cluster() {
  if (handle_ != nullptr) RbdLibrary::get().rados_shutdown(handle_);
}

void Cluster::connect(const Access& access) {
  const RbdLibrary& library = RbdLibrary::get();
  const char* const user = access.user.empty() ? nullptr : access.user.c_str();
  check(library.rados_create(&handle_, user), "error initializing");
  try {
    configure(access);
    try {
      check(library.rados_connect(handle_), "error connecting");
    } catch (Error& error) {
      if (access.explains) explain(error, access);
      throw;
    }
  } catch (...) {
    library.rados_shutdown(handle_);
    handle_ = nullptr;
    throw;
  }
}

void Cluster::configure(const Access& access) {
  const RbdLibrary& library = RbdLibrary::get();
  const int read =
      library.rados_conf_read_file(handle_, access.conf ? access.conf->c_str() : nullptr);
  // Without a file all may be in options.
  if (access.conf) check(read, "error reading conf file " + *access.conf);
  library.rados_conf_parse_env(handle_, nullptr);
  for (const auto& [key, value] : access.settings) set(key, value);
  if (!access.key.empty()) set("key", access.key);
  if (!access.monitors.empty()) set("mon_host", access.monitors);
  if (!access.auth.empty()) set("auth_client_required", access.auth);
  if (!access.cached) set("rbd_cache", "false");
  if (access.timeout != 0) bound_waiting(access.timeout);
}

void Cluster::set(const std::string& key, const std::string& value) {
  check(RbdLibrary::get().rados_conf_set(handle_, key.c_str(), value.c_str()),
        "invalid conf option " + key);
}

// The library waits for ever, or for five minutes, unless it is configured not to.
void Cluster::bound_waiting(unsigned seconds) {
  constexpr double kUsualMountSeconds = 300;
  const auto number = [&](const char* key) {
    char text[64] = {};
    if (RbdLibrary::get().rados_conf_get(handle_, key, text, sizeof text) < 0) return 0.0;
    return std::strtod(text, nullptr);
  };
  const std::string value = std::to_string(seconds);
  for (const char* key : {"rados_osd_op_timeout", "rados_mon_op_timeout"})
    if (number(key) == 0) set(key, value);
  const double mount = number("client_mount_timeout");
  if (mount == 0 || mount == kUsualMountSeconds) set("client_mount_timeout", value);
}

RadosPool::RadosPool(const Access& access, const std::string& pool, const std::string& name_space)
    : cluster_(Cluster::get(access)) {
  const RbdLibrary& library = RbdLibrary::get();
  check(library.rados_ioctx_create(cluster_->handle(), pool.c_str(), &handle_),
        "error opening pool " + pool);
  if (name_space.empty()) return;
  bool exists = false;
  const int result = library.rbd_namespace_exists(handle_, name_space.c_str(), &exists);
  if (result < 0 || !exists) library.rados_ioctx_destroy(handle_);
  check(result, "error checking namespace");
  if (!exists) throw Error(ErrorKind::kNotFound, "namespace '" + name_space + "' does not exist");
  library.rados_ioctx_set_namespace(handle_, name_space.c_str());
}

RadosPool::~RadosPool() { RbdLibrary::get().rados_ioctx_destroy(handle_); }

}  // namespace cairn::rbd
