// Fails on purpose: after so many operations of one kind, one or all further ones end with an
// error. The options are in the schema.

#include <cerrno>

#include "block/driver.h"
#include "filter/filter.h"

namespace cairn {
namespace {

const OptionSchema kFaultOptions = {
    {"on", OptionType::kString, "any", "what fails: read, write, flush or any"},
    {"after", OptionType::kNumber, "0", "so many of them go well first"},
    {"once", OptionType::kBool, "off", "only one fails"},
    {"errno", OptionType::kNumber, "5", "the error number"},
    {"offset", OptionType::kSize, "", "only requests that touch this byte of the file fail"},
};

struct Plan {
  bool reads = true, writes = true, flushes = true;
  uint64_t after = 0;
  bool once = false;
  int error = EIO;
  std::optional<uint64_t> offset;
};

class FaultNode : public FilterNode {
 public:
  FaultNode(OpenContext& request, NodePtr file, Plan plan)
      : FilterNode(request, std::move(file)), plan_(plan) {}

 protected:
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    meet(plan_.reads, offset, out.size());
    return FilterNode::do_read(offset, out);
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    meet(plan_.writes, offset, in.size());
    return FilterNode::do_write(offset, in, flags);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    meet(plan_.writes, offset, length);
    return FilterNode::do_write_zeroes(offset, length, flags);
  }
  Task<void> do_flush() override {
    if (!plan_.offset) meet(plan_.flushes, 0, 0);
    return FilterNode::do_flush();
  }
  Task<void> do_resize(ResizeRequest request) override {
    meet(plan_.writes, request.length, 0);
    return FilterNode::do_resize(request);
  }

 private:
  void meet(bool concerned, uint64_t offset, uint64_t length) {
    if (!concerned) return;
    if (plan_.offset && (*plan_.offset < offset || *plan_.offset >= offset + length)) return;
    const uint64_t number = seen_.fetch_add(1);
    if (number < plan_.after || (plan_.once && number > plan_.after)) return;
    throw Error::system(plan_.error);
  }
  Plan plan_;
  std::atomic<uint64_t> seen_{0};
};

class FaultDriver : public Driver {
 public:
  FaultDriver()
      : Driver({.name = "fault",
                .title = "fails on purpose",
                .kind = DriverKind::kFilter,
                .abilities = {.resize = true},
                .verbatim = true,
                .open_options = kFaultOptions}) {}
  Task<NodePtr> open(OpenContext& request) const override {
    Plan plan;
    const std::string on = request.options.string("on").value_or("any");
    if (on != "any" && on != "read" && on != "write" && on != "flush")
      throw Error(ErrorKind::kInvalid, "Parameter 'on' does not accept value '" + on + "'");
    plan.reads = on == "any" || on == "read";
    plan.writes = on == "any" || on == "write";
    plan.flushes = on == "any" || on == "flush";
    plan.after = request.options.number("after").value_or(0);
    plan.once = request.options.boolean("once").value_or(false);
    plan.error = static_cast<int>(request.options.number("errno").value_or(EIO));
    plan.offset = request.options.size("offset");
    NodePtr file = co_await request.open_file();
    co_return std::make_shared<FaultNode>(request, std::move(file), plan);
  }
};

}  // namespace

std::unique_ptr<Driver> make_fault_driver() { return std::make_unique<FaultDriver>(); }

}  // namespace cairn
