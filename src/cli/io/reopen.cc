#include "cli/io/reopen.h"

#include <algorithm>
#include <map>

#include "block/driver.h"

namespace cairn::cli::io {
namespace {

// Options of files that count when the file is opened.
bool is_fixed(const std::string& key) {
  return key == "filename" || key == "locking" || key == "pr-manager";
}

bool is_own(const Node& node, const std::string& key) {
  const OptionSchema& own = node.driver().open_options();
  return !is_fixed(key) && std::any_of(own.begin(), own.end(), [&](const OptionSpec& spec) {
    return key == spec.name || key.starts_with(std::string(spec.name) + ".");
  });
}

// Whether KEY is one that every node knows; throws when its value is none.
bool is_generic(const Options& changes, const std::string& key) {
  for (const char* known :
       {"read-only", "auto-read-only", "cache.direct", "cache.no-flush", "force-share"}) {
    if (key != known) continue;
    changes.boolean(key);
    return true;
  }
  return key == "discard" || key == "detect-zeroes";
}

bool is_so_already(const Node& node, const std::string& key, const Value& value) {
  if (key == "driver") return value.scalar_text() == node.driver().name();
  if (key == "node-name") return value.scalar_text() == node.node_name();
  return key == "filename" && node.driver().kind() == DriverKind::kProtocol &&
         value.scalar_text() == node.filename();
}

std::string last_part(const std::string& key) { return key.substr(key.rfind('.') + 1); }

}  // namespace

void check_changes(const Node& node, const Options& changes) {
  std::map<std::string, Options> below;
  for (const auto& [key, value] : changes.items()) {
    const size_t dot = key.find('.');
    if (dot != std::string::npos && node.child(key.substr(0, dot)) != nullptr) {
      below[key.substr(0, dot)].set(key.substr(dot + 1), value);
      continue;
    }
    if (is_generic(changes, key) || is_so_already(node, key, value) || is_own(node, key)) continue;
    throw Error(ErrorKind::kInvalid, "Cannot change the option '" + key + "'");
  }
  for (const auto& [name, options] : below) check_changes(*node.child(name), options);
}

void merge_changes(Options& options, const Options& changes) {
  // What replaces a whole set of options leaves nothing of the old set.
  if (changes.has("overlap-check") || changes.has("overlap-check.template")) {
    options.erase("overlap-check");
    options.take_tree("overlap-check");
  }
  if (changes.has("cache-size"))
    for (const char* part : {"l2-cache-size", "refcount-cache-size"}) options.erase(part);
  else if ((changes.has("l2-cache-size") || options.has("l2-cache-size")) &&
           (changes.has("refcount-cache-size") || options.has("refcount-cache-size")))
    options.erase("cache-size");
  for (const auto& [key, value] : changes.items()) {
    const std::string last = last_part(key);
    if (last == "driver" || last == "node-name" || last == "filename" || key == "read-only")
      continue;
    options.set(key, value);
  }
}

}  // namespace cairn::cli::io
