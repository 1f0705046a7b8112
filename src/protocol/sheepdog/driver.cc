#include "block/driver.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>

#include "base/arith.h"
#include "block/context.h"
#include "block/open.h"
#include "block/takes_back.h"
#include "protocol/driver_options.h"
#include "protocol/server_driver.h"
#include "protocol/sheepdog/node.h"

namespace cairn {
namespace {

using namespace sheepdog;

const OptionSchema kOpenOptions = {
    {"server.type", OptionType::kString, "", "inet or unix"},
    {"server.host", OptionType::kString, "localhost", "host of a daemon of the cluster"},
    {"server.port", OptionType::kString, "7000", "its port"},
    {"server.path", OptionType::kString, "", "its Unix socket"},
    {"vdi", OptionType::kString, "", "name of the VDI"},
    {"snap-id", OptionType::kNumber, "0", "number of a snapshot of it"},
    {"tag", OptionType::kString, "", "tag of a snapshot of it"},
    {"timeout", OptionType::kNumber, "30", "seconds without an answer", true},
};

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"backing_file", OptionType::kString, "", "snapshot of a VDI that the new one is a clone of"},
    {"preallocation", OptionType::kString, "", "off, or full: write zeroes over the whole VDI"},
    {"redundancy", OptionType::kString, "", "N copies, or D:P strips of data and parity"},
    {"object_size", OptionType::kSize, "", "bytes of an object, a power of two from 1 MiB on"},
};

struct Description {
  Target target;
  VdiName vdi;
  std::string name;  // as it is shown
};

Description describe(const Context& context, Options& options) {
  Description result;
  result.vdi = vdi_of(options);
  result.target.timeout = std::chrono::seconds(bounded_option(options, "timeout", 1, 100'000, 30));
  result.target.servers = servers_of(options);
  result.target.cancel = context.cancel;
  const std::vector<SocketAddress>& servers = result.target.servers;
  if (servers.size() == 1) result.name = uri_of(servers.front(), result.vdi);
  if (!result.name.empty()) return result;
  Value tree = Value::object();
  tree.set("driver", "sheepdog");
  tree.set("vdi", result.vdi.name);
  if (!result.vdi.tag.empty()) tree.set("tag", result.vdi.tag);
  if (result.vdi.snapshot != 0) tree.set("snap-id", uint64_t{result.vdi.snapshot});
  if (servers.size() == 1) {
    tree.set("server", servers.front().to_value());
  } else {
    Value list = Value::array();
    for (const SocketAddress& server : servers) list.push_back(server.to_value());
    tree.set("server", std::move(list));
  }
  result.name = "json:" + tree.compact(context.profile.json_order);
  return result;
}

// What `create` asks for beside name and size.
struct Wishes {
  std::string backing;
  bool full = false;
  std::optional<Redundancy> redundancy;
  std::optional<uint8_t> shift;
};

Wishes wishes_of(const Options& options) {
  Wishes wishes;
  wishes.backing = options.string("backing_file").value_or("");
  if (const auto mode = options.string("preallocation"); mode && !mode->empty()) {
    if (*mode != "off" && *mode != "full")
      invalid("Invalid preallocation mode: '" + *mode + "' (off and full are possible)");
    wishes.full = *mode == "full";
  }
  if (const auto text = options.string("redundancy"); text && !text->empty())
    wishes.redundancy = Redundancy::parse(*text);
  if (const auto bytes = options.size("object_size"); bytes && *bytes != 0)
    wishes.shift = shift_of(*bytes);
  return wishes;
}

// Throws unless NAME is a snapshot of a VDI.
VdiName base_named(const std::string& name) {
  if (!name.starts_with("sheepdog"))
    invalid("The backing file of a VDI is a snapshot of a VDI, such as sheepdog:///BASE#TAG; '" +
            name + "' is none");
  VdiName base = vdi_of(parse_name(name));
  if (!base.is_snapshot())
    throw Error(ErrorKind::kInvalid, "cannot clone from the VDI '" + base.name +
                                         "', which is written: it must be a snapshot")
        .hint(fmt::format("Make one: snapshot -c TAG {}, and name it: {}#TAG", name, name));
  return base;
}

void check_size(const NewVdi& wanted) {
  if (wanted.size <= kMaxObjects << wanted.shift) return;
  throw Error(ErrorKind::kTooLarge,
              fmt::format("A VDI with objects of {} bytes has at most {} bytes",
                          uint64_t{1} << wanted.shift, kMaxObjects << wanted.shift))
      .hint("Choose larger objects with object_size.");
}

// Connects CLUSTER, and makes the VDI that WISHES describe.
Task<void> make(Cluster& cluster, std::string name, uint64_t size, Wishes wishes) {
  co_await cluster.open();
  NewVdi wanted;
  wanted.name = std::move(name);
  wanted.size = size;
  if (!wishes.backing.empty()) {
    VdiName base_name = base_named(wishes.backing);
    const uint32_t base = co_await find_vdi(cluster, base_name);
    const Inode inode = co_await read_inode(cluster, base);
    if (!inode.is_snapshot())
      invalid("cannot clone from the VDI '" + base_name.name + "': it is no snapshot");
    if (align_up(inode.size, 512) != size)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("A clone has the size of its snapshot, {} bytes", inode.size))
          .hint("Leave the size out, and grow the clone with `resize`.");
    if (wishes.redundancy || (wishes.shift && *wishes.shift != inode.shift))
      invalid("A clone has the redundancy and the object size of its snapshot");
    wanted.size = inode.size;
    wanted.base = base;
    wanted.redundancy = {.copies = inode.copies, .policy = inode.copy_policy};
    wanted.shift = inode.shift;
  } else {
    wanted.redundancy = wishes.redundancy.value_or(Redundancy{});
    if (wishes.shift)
      wanted.shift = *wishes.shift;
    else
      wanted.shift = co_await default_shift(cluster);
    check_size(wanted);
  }
  const std::string made = wanted.name;
  try {
    static_cast<void>(co_await make_vdi(cluster, std::move(wanted)));
  } catch (Error& error) {
    if (error.kind() != ErrorKind::kExists) throw;
    throw error.hint("Write into it (convert -n), or delete it: dog vdi delete " + made);
  }
}

Task<void> remove(Cluster& cluster, VdiName name) {
  co_await cluster.open();
  const uint32_t vdi = co_await find_vdi(cluster, name);
  co_await delete_vdi(cluster, std::move(name), vdi);
}

// Writes every byte with what it is.
Task<void> fill(SheepdogNode& node) {
  std::vector<std::byte> buffer(1 << 20);
  for (uint64_t at = 0; at < node.length();) {
    const MutableByteSpan part =
        MutableByteSpan(buffer).first(std::min<uint64_t>(buffer.size(), node.length() - at));
    if (node.context().cancel != nullptr) node.context().cancel->check();
    co_await node.read(at, part);
    co_await node.write(at, part);
    at += part.size();
    if (node.context().progress) node.context().progress("preallocate", at, node.length());
  }
}

class SheepdogDriver : public ServerDriver, public TakesBack {
 public:
  SheepdogDriver()
      : ServerDriver({.name = "sheepdog",
                      .title = "VDIs of a Sheepdog cluster",
                      .prefixes = {"sheepdog", "sheepdog+tcp", "sheepdog+unix"},
                      .abilities = {.create = true, .resize = true},
                      .capabilities = SheepdogNode::Capabilities::ids(),
                      .open_options = kOpenOptions,
                      .create_options = kCreateOptions},
                     {"vdi", "snap-id", "tag"}) {}

  Task<NodePtr> open(OpenContext& request) const override {
    Description description = describe(request.context, request.options);
    description.target.server = request.server;
    co_return co_await connected(std::make_shared<SheepdogNode>(
        request.context, *this, std::move(description.target), std::move(description.vdi),
        request.flags.writable, std::move(description.name)));
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    Options options = named(request.filename);
    Description description = describe(context, options);
    if (description.vdi.is_snapshot())
      invalid("A snapshot cannot be created by its name: create the VDI, and use `snapshot -c`");
    Wishes wishes = wishes_of(request.options);
    const bool full = wishes.full;
    Cluster cluster(context.runtime(), description.target);
    co_await work_and_close(cluster,
                            make(cluster, description.vdi.name, request.size, std::move(wishes)));
    if (!full) co_return;
    std::optional<Error> failure;
    try {
      co_await preallocate(context, std::move(description));
    } catch (const Error& error) {
      failure = error;
    }
    if (!failure) co_return;
    if (context.profile.explanations)
      co_await cairn::take_back(context, *this, request.filename, {}, &*failure);
    throw *failure;
  }

  bool makes_only_new() const override { return true; }

  Task<void> take_back(Context& context, std::string filename, Options) const override {
    Options options;
    parse_filename(filename, options);
    const Description description = describe(context, options);
    Cluster cluster(context.runtime(), description.target);
    co_await work_and_close(cluster, remove(cluster, description.vdi));
  }

 protected:
  Options parse_name(std::string_view filename) const override {
    return sheepdog::parse_name(filename);
  }

 private:
  Task<void> preallocate(Context& context, Description description) const {
    auto node = std::make_shared<SheepdogNode>(context, *this, std::move(description.target),
                                               std::move(description.vdi), true,
                                               std::move(description.name));
    co_await connect_or_close(*node);
    co_await work_and_close(*node, fill(*node));
  }
};

}  // namespace

std::unique_ptr<Driver> make_sheepdog_driver() { return std::make_unique<SheepdogDriver>(); }

}  // namespace cairn
