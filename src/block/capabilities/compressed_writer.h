#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "async/task.h"
#include "base/bytes.h"
#include "block/capability.h"

namespace cairn {

class Node;

// A format that stores clusters compressed. Compression is CPU work that a copy wants to do in
// parallel before the ordered write; so it has two halves.
class CompressedWriter {
 public:
  static constexpr CapabilityTag kCapability{"compressed-writer"};

  // Whether this image can store any cluster so.
  virtual bool supports_compression() const = 0;
  // True when every cluster must be stored compressed, in one write.
  virtual bool compressed_only() const { return false; }
  // How hard encode_cluster() tries from now on; not kept in the image. Before its first call.
  // Throws kInvalid that names the range.
  virtual void set_compression_level(uint64_t level) = 0;
  // Encodes one cluster; an empty result means "store it plain". From any thread.
  virtual std::vector<std::byte> encode_cluster(ByteSpan plain) const = 0;
  // Stores what encode_cluster() gave for the cluster at OFFSET, whose content is PLAIN, and marks
  // the range dirty. In the order of offsets the image comes out packed in guest order. Throws kIo
  // when the cluster already has space of its own; a failure leaves the range undefined, nothing
  // else. From any worker.
  virtual Task<void> write_encoded(uint64_t offset, ByteSpan encoded, ByteSpan plain) = 0;
  // A copy stored all that it had, which may have been nothing. After the last write_encoded().
  virtual Task<void> finish_encoded();

 protected:
  ~CompressedWriter() = default;
};

// NODE's writer, null where its format has none or this image can store no cluster compressed.
CompressedWriter* compressed_writer(Node& node);
inline bool supports_compression(Node& node) { return compressed_writer(node) != nullptr; }
// False as well where NODE has none.
bool compressed_only(const Node& node);
// Throws kUnsupported that names the driver where NODE has none.
void set_compression_level(Node& node, uint64_t level);
// Stores whole clusters compressed (the last one of the disk may be short). IN is the plain
// content. Throws as Node::write(), kUnsupported where NODE has none, kInvalid for parts of
// clusters.
Task<void> write_compressed(Node& node, uint64_t offset, ByteSpan in);

}  // namespace cairn
