// Backups that are fetched. Old data goes to an overlay over the node before the guest overwrites
// it (the job "backup" with sync=none): the overlay shows the disk of one moment, and is exported.
#include "operation/backup_pull.h"

#include "async/finally.h"
#include "block/driver.h"
#include "operation/backup_part.h"
#include "operation/nodes.h"
#include "platform/directory.h"

namespace cairn::operation {
namespace {

constexpr const char* kNbdPort = "10809";
constexpr uint64_t kChangesGranularity = 65536;
constexpr const char* kChanges = "changes";  // a bitmap of the overlay, which goes with it

bool names_any_host(const SocketAddress& address) {
  return address.kind == SocketAddress::Kind::kInet &&
         (address.host == "0.0.0.0" || address.host == "::");
}

// "type" and "data", as nbd-server-start takes it.
Value start_address(const SocketAddress& address) {
  Value data = Value::object();
  if (address.kind == SocketAddress::Kind::kUnix) {
    data.set("path", address.path);
  } else {
    data.set("host", address.host);
    data.set("port", address.port);
  }
  Value result = Value::object();
  result.set("type", address.kind == SocketAddress::Kind::kUnix ? "unix" : "inet");
  result.set("data", std::move(data));
  return result;
}

class Pull {
 public:
  Pull(Caller& caller, const BackupStore& store, BackupDaemon& daemon, const BackupOptions& plan,
       NodeCopy& copy)
      : caller_(caller), store_(store), daemon_(daemon), plan_(plan), copy_(copy) {}

  Task<void> run() {
    const PullAddress address = pull_address(plan_.address, plan_.pull.nbd);
    co_await make_overlay();
    co_await begin();
    co_await serve(address.listen);
    co_await fetch(address.connect);
    co_await check_job();
  }

 private:
  bool full() const { return copy_.old_bitmap.empty(); }

  // In a directory of the daemon, which may be another machine.
  std::string scratch_path() const {
    std::string directory = plan_.pull.scratch;
    if (directory.empty()) {
      // What is no plain path names a server, or more than one file. The directory of devices is in
      // memory.
      if (copy_.file.empty() || copy_.file.find(':') != std::string::npos ||
          copy_.file.starts_with("/dev/"))
        throw Error(ErrorKind::kInvalid, "no directory for old data is known for the node '" +
                                             copy_.node + "', which is no file")
            .hint("Name one of the daemon's machine.", "scratch=DIR");
      const size_t slash = copy_.file.rfind('/');
      directory = slash == std::string::npos ? "." : copy_.file.substr(0, slash + 1);
    }
    if (!directory.ends_with('/')) directory += '/';
    return directory + daemon_.scratch_name();
  }

  Task<void> make_overlay() {
    const std::string path = scratch_path();
    try {
      Value file = Value::object();
      file.set("driver", "file");
      file.set("filename", path);
      file.set("size", uint64_t{0});
      co_await daemon_.create(file);
      daemon_.scratch_is(path);
      Value node = Value::object();
      node.set("driver", "file");
      node.set("node-name", daemon_.scratch_node());
      node.set("filename", path);
      co_await daemon_.ask("blockdev-add", std::move(node));
    } catch (Error& error) {
      if (error.kind() == ErrorKind::kCancelled) throw;
      throw error.context("the daemon cannot keep old data in '" + path + "'")
          .hint("Name another directory of the daemon's machine.", "scratch=DIR");
    }
    Value image = Value::object();
    image.set("driver", "qcow2");
    image.set("file", daemon_.scratch_node());
    image.set("size", (copy_.size + 511) / 512 * 512);
    co_await daemon_.create(std::move(image));
    Value overlay = Value::object();
    overlay.set("driver", "qcow2");
    overlay.set("node-name", daemon_.target());
    overlay.set("file", daemon_.scratch_node());
    overlay.set("backing", copy_.node);
    co_await daemon_.ask("blockdev-add", std::move(overlay));
  }

  // What has changed is frozen at the moment of the copy: the old bitmap itself continues.
  Task<void> begin() {
    std::vector<Value> more;
    if (!full()) {
      Value added = named_bitmap(daemon_.target(), kChanges);
      added.set("granularity", kChangesGranularity);
      added.set("disabled", true);
      more.push_back(transaction_action("block-dirty-bitmap-add", std::move(added)));
      Value merged = Value::object();
      merged.set("node", daemon_.target());
      merged.set("target", kChanges);
      Value sources = Value::array();
      sources.push_back(named_bitmap(copy_.node, copy_.old_bitmap));
      merged.set("bitmaps", std::move(sources));
      more.push_back(transaction_action("block-dirty-bitmap-merge", std::move(merged)));
    }
    Value backup = Value::object();
    backup.set("sync", "none");
    co_await daemon_.begin(copy_, std::move(backup), std::move(more));
  }

  // The object of the daemon with which it can serve TLS: that of the same ID as ours, or the only
  // one there is.
  Task<std::string> server_credentials() {
    Value path = Value::object();
    path.set("path", "/objects");
    const Value objects = co_await daemon_.ask("qom-list", std::move(path));
    std::string found;
    size_t count = 0;
    if (const auto* list = objects.get_if<Value::Array>()) {
      for (const Value& object : *list) {
        const std::string name = text_of_member(object, "name");
        if (!text_of_member(object, "type").starts_with("child<tls-creds-")) continue;
        if (name == plan_.pull.tls_creds) co_return name;
        found = name;
        ++count;
      }
    }
    if (count == 1) co_return found;
    throw Error(ErrorKind::kInvalid,
                count == 0 ? "the daemon has no credentials for TLS"
                           : "the daemon has several credentials for TLS, and none is '" +
                                 plan_.pull.tls_creds + "'")
        .hint("Add them there as an object with the ID '" + plan_.pull.tls_creds + "'.");
  }

  Task<void> serve(SocketAddress address) {
    Value server = Value::object();
    server.set("addr", start_address(address));
    if (!plan_.pull.tls_creds.empty()) server.set("tls-creds", co_await server_credentials());
    try {
      co_await daemon_.ask("nbd-server-start", std::move(server));
      started_ = true;
    } catch (const QmpRefusal& refusal) {
      // One that is there already is used.
      if (refusal.message().find("already running") == std::string::npos)
        throw Error(ErrorKind::kIo,
                    "the daemon cannot listen at " + address.text() + ": " + refusal.message())
            .hint("Name another address.", "nbd=ADDRESS");
    }
    if (started_) co_await daemon_.note_server();
    Value view = Value::object();
    view.set("type", "nbd");
    view.set("id", daemon_.target());
    view.set("node-name", daemon_.target());
    view.set("name", daemon_.target());
    if (!full()) {
      Value bitmaps = Value::array();
      bitmaps.push_back(kChanges);
      view.set("bitmaps", std::move(bitmaps));
    }
    co_await daemon_.ask("block-export-add", std::move(view));
  }

  // CONTEXT: what the extents of the node mean; empty: what is allocated.
  Task<NodePtr> open_view(SocketAddress address, std::string context) {
    OpenRequest request;
    request.image_opts = true;
    request.options.set("driver", "nbd");
    if (address.kind == SocketAddress::Kind::kUnix) {
      request.options.set("path", address.path);
    } else {
      request.options.set("host", address.host);
      request.options.set("port", address.port);
    }
    request.options.set("export", daemon_.target());
    if (!plan_.pull.tls_creds.empty()) request.options.set("tls-creds", plan_.pull.tls_creds);
    if (!context.empty()) request.options.set("x-dirty-bitmap", context);
    try {
      NodePtr node = co_await open_node(caller_.context, std::move(request));
      co_return node;
    } catch (Error& error) {
      if (error.kind() == ErrorKind::kCancelled) throw;
      throw error
          .context("the export '" + daemon_.target() + "' of the daemon cannot be reached at " +
                   address.text())
          .hint(started_ ? "Name another address at which the daemon is to listen."
                         : "The daemon had an NBD server already: name its address.",
                "nbd=ADDRESS");
    }
  }

  Task<void> fetch(SocketAddress address) {
    PartContent content{.full = full(), .compress = copy_.compress};
    DirtyBitmapPtr changed;
    if (!full()) {
      changed = co_await fetch_changes(address);
      content.changed = changed.get();
    }
    content.source = co_await open_view(address, {});
    co_await finally([&] { return fill_part(caller_, store_, copy_.part, content); },
                     [&] { return content.source->close(); });
  }

  Task<DirtyBitmapPtr> fetch_changes(SocketAddress address) {
    const NodePtr view = co_await open_view(address, std::string("qemu:dirty-bitmap:") + kChanges);
    auto changed = std::make_shared<DirtyBitmap>(kChanges, view->length(), kChangesGranularity);
    co_await finally(
        [&]() -> Task<void> {
          for (uint64_t at = 0; at < view->length();) {
            caller_.cancel.check();
            const Extent extent = co_await view->layer_extent_at(at, view->length() - at);
            // Where the context is not that of allocation, its lowest bit is shown as a hole.
            if (!extent.data) changed->mark(at, extent.length);
            at += extent.length;
          }
        },
        [&] { return view->close(); });
    co_return changed;
  }

  // What was read is that of the moment only while old data was kept.
  Task<void> check_job() {
    const std::optional<Value> job = co_await daemon_.find_job();
    if (!job) throw Error(ErrorKind::kIo, "somebody else ended the job of the backup");
    const std::string error = text_of_member(*job, "error");
    const std::string status = text_of_member(*job, "status");
    if (!error.empty() || status == "aborting" || status == "concluded")
      throw Error(ErrorKind::kIo, "the daemon could not keep old data: " +
                                      (error.empty() ? "its job ended early" : error));
  }

  Caller& caller_;
  const BackupStore& store_;
  BackupDaemon& daemon_;
  const BackupOptions& plan_;
  NodeCopy& copy_;
  bool started_ = false;  // the NBD server, by us
};

}  // namespace

bool is_remote_daemon(const std::string& qmp) {
  return QmpClient::parse_address(qmp).kind == SocketAddress::Kind::kInet;
}

PullAddress pull_address(const std::string& qmp, const std::string& nbd) {
  const SocketAddress monitor = QmpClient::parse_address(qmp);
  const bool local = monitor.kind == SocketAddress::Kind::kUnix;
  PullAddress result;
  if (nbd.empty()) {
    result.listen = local ? SocketAddress::unix_path(platform::absolute(monitor.path) + ".nbd")
                          : SocketAddress::inet(monitor.host, kNbdPort);
  } else if (nbd.starts_with(':') && !local) {
    result.listen = SocketAddress::inet(monitor.host, nbd.substr(1));
  } else {
    result.listen = QmpClient::parse_address(nbd);
  }
  result.connect = result.listen;
  if (names_any_host(result.listen)) result.connect.host = local ? "localhost" : monitor.host;
  return result;
}

Task<void> pull_copy(Caller& caller, const BackupStore& store, BackupDaemon& daemon,
                     const BackupOptions& plan, NodeCopy& copy) {
  Pull pull(caller, store, daemon, plan, copy);
  co_await pull.run();
}

}  // namespace cairn::operation
