#include <algorithm>

#include "base/error.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/exports.h"
#include "daemon/nbd_service.h"
#include "export/nbd/bitmaps.h"

namespace cairn::daemon {
namespace {

using nbd::server::ExportOptions;
using nbd::server::ExportPtr;

constexpr size_t kLongestText = 4096;

// A node's disk as NBD clients see it.
class NbdExport : public LiveExport {
 public:
  NbdExport(std::string id, RootPtr root, nbd::server::Server& server, ExportPtr exported)
      : LiveExport(std::move(id), "nbd", std::move(root)),
        server_(server),
        exported_(std::move(exported)) {
    server_.add(exported_);
  }
  bool in_use() const override { return server_.clients_of(*exported_) != 0; }
  Task<void> await_leaving() override {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    // It may end meanwhile.
    while (exported_ != nullptr && server_.leaving_clients_of(*exported_) != 0 &&
           std::chrono::steady_clock::now() < until)
      co_await sleep_for(std::chrono::milliseconds(2));
  }
  void request_shutdown() override {
    server_.remove(*exported_);
    server_.drop_clients_of(*exported_);
  }
  Task<void> ended() override {
    // One that had just agreed on it may have become a client meanwhile.
    while (server_.clients_of(*exported_) != 0) {
      co_await sleep_for(std::chrono::milliseconds(2));
      server_.drop_clients_of(*exported_);
    }
    if (exported_->writable()) co_await flush();
    exported_.reset();
  }

 private:
  Task<void> flush() {
    try {
      co_await exported_->node().flush();
    } catch (const Error& error) {
      root()->context().warn("export '" + id() + "': " + error.message());
    }
  }
  nbd::server::Server& server_;
  ExportPtr exported_;
};

std::string name_of(const Value& arguments) {
  const Value* name = arguments.find("name");
  return name == nullptr ? text_of(arguments, "node-name") : name->scalar_text();
}

Task<void> check_nbd(Daemon& daemon, Value arguments) {
  const nbd::server::Server& server = daemon.nbd().server();
  const std::string name = name_of(arguments);
  const std::string description = text_of(arguments, "description");
  if (name.size() > kLongestText) invalid("export name '" + name + "' too long");
  if (description.size() > kLongestText) invalid("description '" + description + "' too long");
  if (server.find(name) != nullptr) invalid("NBD server already has export named '" + name + "'");
  co_return;
}

// The bitmap that an element of "bitmaps" means: a name is looked for from NODE downwards.
DirtyBitmapPtr find_bitmap(Daemon& daemon, Node& node, const Value& wanted) {
  if (wanted.is_object()) {
    const std::string owner = text_of(wanted, "node");
    const NodePtr found = daemon.graph().find(owner);
    if (found == nullptr) throw Error(ErrorKind::kNotFound, "Node '" + owner + "' not found");
    return found->bitmaps().get(text_of(wanted, "name"));
  }
  return nbd::server::bitmap_below(node, wanted.scalar_text());
}

void add_bitmaps(Daemon& daemon, Node& node, const Value& list, ExportOptions& options) {
  const auto& all = *list.get_if<Value::Array>();
  // QEMU numbers its contexts from the last one.
  std::vector<DirtyBitmapPtr> bitmaps;
  for (auto wanted = all.rbegin(); wanted != all.rend(); ++wanted)
    bitmaps.push_back(find_bitmap(daemon, node, *wanted));
  nbd::server::offer_bitmaps(options, node, bitmaps);
}

Task<std::unique_ptr<LiveExport>> make_nbd(ExportRequest request) {
  ExportOptions options;
  options.name = name_of(request.arguments);
  options.description = text_of(request.arguments, "description");
  options.node = request.root;
  options.size = request.root->length() & ~uint64_t{511};
  options.writable = request.writable;
  options.multi_conn = request.daemon.nbd().multi_conn();
  options.allocation_depth = flag_of(request.arguments, "allocation-depth", false);
  if (const Value* bitmaps = request.arguments.find("bitmaps"))
    add_bitmaps(request.daemon, *request.root->node(), *bitmaps, options);
  auto exported = std::make_shared<const nbd::server::Export>(std::move(options));
  std::unique_ptr<LiveExport> made = std::make_unique<NbdExport>(
      request.id, request.root, request.daemon.nbd().server(), std::move(exported));
  co_return made;
}

}  // namespace

ExportType nbd_export_type() {
  return {.name = "nbd", .resizes = false, .check = check_nbd, .make = make_nbd};
}

}  // namespace cairn::daemon
