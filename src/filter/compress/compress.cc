// What is written through it is stored compressed, whole clusters at a time.

#include <algorithm>

#include "block/capabilities/compressed_writer.h"
#include "block/driver.h"
#include "filter/filter.h"

namespace cairn {
namespace {

class CompressNode : public FilterNode {
 public:
  CompressNode(OpenContext& request, NodePtr file) : FilterNode(request, std::move(file)) {
    // Smaller requests are widened to what can be compressed.
    Limits& limits = mutable_limits();
    limits.request_alignment =
        std::max(limits.request_alignment, static_cast<uint32_t>(limits.cluster_bytes));
    set_unbounded(false);
  }

 protected:
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags) override {
    // The last cluster of the disk may be short.
    const uint64_t inside = offset < length() ? length() - offset : 0;
    return write_compressed(below(), offset, in.first(std::min<uint64_t>(in.size(), inside)));
  }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    const uint64_t inside = offset < length() ? length() - offset : 0;
    const size_t part = std::min<uint64_t>(out.size(), inside);
    std::fill(out.begin() + static_cast<ptrdiff_t>(part), out.end(), std::byte{0});
    return below().read(offset, out.first(part));
  }
};

class CompressDriver : public Driver {
 public:
  CompressDriver()
      : Driver({.name = "compress",
                .title = "compresses what is written",
                .kind = DriverKind::kFilter,
                .abilities = {.resize = true}}) {}
  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    if (!supports_compression(*file)) {
      const std::string name(file->driver().name());
      co_await file->close();
      throw Error(ErrorKind::kUnsupported,
                  "Compression is not supported for underlying format: " + name);
    }
    co_return std::make_shared<CompressNode>(request, std::move(file));
  }
};

}  // namespace

std::unique_ptr<Driver> make_compress_driver() { return std::make_unique<CompressDriver>(); }

}  // namespace cairn
