#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cairn::rbd {

// A setting of Ceph's configuration and its value.
using Setting = std::pair<std::string, std::string>;

// What "rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:KEY=VALUE…]" says. A backslash takes the special
// meaning from the character after it.
struct Location {
  std::string pool;
  std::string name_space;
  std::string image;
  std::optional<std::string> snapshot;
  std::optional<std::string> conf;  // the key "conf"
  std::optional<std::string> user;  // the key "id"
  std::vector<Setting> settings;    // all other keys
};

// Throws kInvalid with QEMU's words.
Location parse_name(std::string_view name);

// SETTINGS as one text, and back.
std::string join_settings(const std::vector<Setting>& settings);
std::vector<Setting> split_settings(std::string_view text);

}  // namespace cairn::rbd
