#pragma once

#include <cstdint>
#include <string>

#include "async/task.h"
#include "block/capability.h"

namespace cairn {

class Node;

// An image that names the image below it.
class BackingName {
 public:
  static constexpr CapabilityTag kCapability{"backing-name"};

  // Name and format of the backing file as stored in the image; empty when there is none. From any
  // thread, while no change_backing() is under way.
  virtual std::string backing_name() const = 0;
  virtual std::string backing_format() const { return {}; }

 protected:
  ~BackingName() = default;
};

// An image that can be put over another one, or over none, while it exists.
class BackingLink {
 public:
  static constexpr CapabilityTag kCapability{"backing-link"};

  // Changes the name and format of the backing file in the image, and nothing else; an empty name
  // removes it. Throws kUnsupported where the image can have none, kNoSpace when the name does not
  // fit; after a failure the image names what it named before. From any worker, one call at a time.
  virtual Task<void> change_backing(std::string name, std::string format);
  // Makes every byte unallocated again, so that all are decided by the layer below. False where the
  // format cannot, and nothing was changed. After a failure some of the disk is unallocated. No
  // request may be under way.
  virtual Task<bool> make_empty();
  // The same for whole units of limits().zero_alignment from OFFSET on. Says how many bytes were
  // done: 0 where it is not possible. From any worker, during requests.
  virtual Task<uint64_t> unmap(uint64_t offset, uint64_t length);

 protected:
  ~BackingLink() = default;
};

// Empty where NODE's format has no backing files.
std::string backing_name_of(const Node& node);
std::string backing_format_of(const Node& node);
// Throws kUnsupported where NODE has no BackingLink.
Task<void> change_backing(Node& node, std::string name, std::string format);
// False where NODE has none.
Task<bool> make_empty(Node& node);
// 0 where NODE has none.
Task<uint64_t> unmap(Node& node, uint64_t offset, uint64_t length);

}  // namespace cairn
