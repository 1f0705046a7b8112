// A disk without content: the smallest complete driver, which docs/adding-a-driver.md walks
// through.

#include <cstring>
#include <string>

#include "async/runtime.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/driver.h"
#include "block/open.h"

namespace cairn {
namespace {

const OptionSchema kOpenOptions = {
    {"size", OptionType::kSize, "1G", "size of the disk"},
    {"latency-ns", OptionType::kNumber, "0", "how long each request takes, in nanoseconds"},
    {"read-zeroes", OptionType::kBool, "off", "reads fill the buffer with zeroes"},
};

class NullNode : public Node, public ImageInfo, public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse>;

  NullNode(OpenContext& request, uint64_t size, uint64_t latency_ns, bool read_zeroes)
      : Node(request.context, request.driver), latency_(latency_ns), read_zeroes_(read_zeroes) {
    set_length(size);
    set_unbounded(false);
  }

  void set_short_name() { set_filename(std::string(driver().name()) + "://"); }
  Task<std::optional<uint64_t>> allocated_bytes() override { co_return 0; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t, MutableByteSpan out) override {
    if (latency_.count() != 0) co_await sleep_for(latency_);
    // Without read-zeroes the buffer is left alone: nothing is promised about its content.
    if (read_zeroes_) std::memset(out.data(), 0, out.size());
  }
  Task<void> do_write(uint64_t, ByteSpan, WriteFlags) override { co_await wait(); }
  Task<void> do_write_zeroes(uint64_t, uint64_t, WriteFlags) override { co_await wait(); }
  Task<void> do_flush() override { co_await wait(); }
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override {
    Extent extent;
    extent.length = max;
    extent.allocated = true;
    extent.data = !read_zeroes_;
    extent.zero = read_zeroes_;
    extent.host = this;
    extent.host_offset = offset;
    co_return extent;
  }

 private:
  Task<void> wait() {
    if (latency_.count() != 0) co_await sleep_for(latency_);
  }
  std::chrono::nanoseconds latency_;
  bool read_zeroes_;
};

class NullDriver : public Driver {
 public:
  explicit NullDriver(std::string_view name)
      : Driver({.name = name,
                .title = "a disk that forgets what is written",
                .kind = DriverKind::kProtocol,
                .prefixes = {name},
                .capabilities = NullNode::Capabilities::ids(),
                .fixed_size = true,
                .open_options = kOpenOptions}) {}

  void parse_filename(std::string_view filename, Options&) const override {
    if (filename != std::string(name()) + "://")
      throw Error(ErrorKind::kInvalid,
                  "The only allowed filename for this driver is '" + std::string(name()) + "://'");
  }

  Task<NodePtr> open(OpenContext& request) const override {
    const uint64_t size = request.options.size("size").value_or(uint64_t{1} << 30);
    const uint64_t latency = request.options.number("latency-ns").value_or(0);
    const bool zeroes = request.options.boolean("read-zeroes").value_or(false);
    if (latency > static_cast<uint64_t>(INT64_MAX))
      throw Error(ErrorKind::kInvalid, "latency-ns is invalid");
    const bool plain = !request.options.has("size") && !request.options.has("read-zeroes");
    auto node = std::make_shared<NullNode>(request, size, latency, zeroes);
    if (plain) node->set_short_name();
    co_return node;
  }
};

}  // namespace

std::unique_ptr<Driver> make_null_co_driver() { return std::make_unique<NullDriver>("null-co"); }
std::unique_ptr<Driver> make_null_aio_driver() { return std::make_unique<NullDriver>("null-aio"); }

}  // namespace cairn
