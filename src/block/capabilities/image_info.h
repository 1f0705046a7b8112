#pragma once

#include <optional>
#include <string_view>

#include "base/value.h"
#include "block/capability.h"

namespace cairn {

class Node;

// What a node says of itself to people. From any thread, at any time after opening; nothing throws.
class ImageInfo {
 public:
  static constexpr CapabilityTag kCapability{"image-info"};

  // Members of "format-specific" → "data"; null when there are none. Their type, where it is not
  // the driver's name.
  virtual Value specific_info() const { return {}; }
  virtual std::string_view specific_type() const { return {}; }
  // The dirty flag of `info`; nothing when the driver does not answer the query.
  virtual std::optional<bool> dirty_flag() const { return false; }
  // Whether `info` shows limits().cluster_bytes, as QEMU does for most formats.
  virtual bool reports_cluster_bytes() const { return true; }
  virtual bool encrypted() const { return false; }

 protected:
  ~ImageInfo() = default;
};

// The same of any NODE; one without the capability answers as the defaults do, and so does one
// whose specific_info() is an extension that the Profile does not offer.
Value specific_info_of(const Node& node);
std::string_view specific_type_of(const Node& node);
std::optional<bool> dirty_flag_of(const Node& node);
bool reports_cluster_bytes(const Node& node);
bool is_encrypted(const Node& node);

}  // namespace cairn
