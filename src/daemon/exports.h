#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/async.h"
#include "base/value.h"
#include "block/graph/graph.h"
#include "daemon/objects.h"

namespace cairn::daemon {

class Daemon;

// One running export. It uses the node that its Root holds, which its maker detaches when the
// export has ended.
class LiveExport {
 public:
  virtual ~LiveExport() = default;
  LiveExport(const LiveExport&) = delete;

  const std::string& id() const { return id_; }
  std::string_view type() const { return type_; }
  const RootPtr& root() const { return root_; }
  // A client has it, so that it is not removed without force.
  virtual bool in_use() const = 0;
  // Waits for clients that have left already, up to a second: their connections may not have ended.
  virtual Task<void> await_leaving() { co_return; }
  // Cuts off clients and takes no new ones.
  virtual void request_shutdown() = 0;
  // The node has got another size.
  virtual void resized() {}
  // Waits until no request is in it any more.
  virtual Task<void> ended() = 0;

 protected:
  LiveExport(std::string id, std::string_view type, RootPtr root)
      : id_(std::move(id)), type_(type), root_(std::move(root)) {}

 private:
  std::string id_;
  std::string_view type_;
  RootPtr root_;
};

// What a creator is given: ARGUMENTS are those of block-export-add, checked.
struct ExportRequest {
  Daemon& daemon;
  std::string id;
  RootPtr root;
  bool writable = false;
  Value arguments;
};

// A type of exports. A new one is a row in exports.cc.
struct ExportType {
  std::string_view name;
  bool resizes = false;       // a writable one may change the size of its node
  bool follows_size = false;  // others may change the size meanwhile
  // Throws what keeps it from being made, before anything is done.
  Task<void> (*check)(Daemon& daemon, Value arguments);
  Task<std::unique_ptr<LiveExport>> (*make)(ExportRequest request);
};

ExportType nbd_export_type();
ExportType fuse_export_type();
ExportType vhost_user_export_type();

// The exports of a daemon by id. On its worker.
class Exports {
 public:
  explicit Exports(Daemon& daemon) : daemon_(daemon) {}

  // block-export-add.
  Task<void> add(Value arguments);
  // block-export-del: with HARD clients are cut off, and the end comes later. Throws kInvalid when
  // there is none, or a client has it.
  Task<void> remove(std::string id, bool hard);
  // Ends all that DOOMED accepts, and waits for that.
  // REPORTED: with an event for each.
  Task<void> remove_all(std::function<bool(const LiveExport&)> doomed, bool reported = true);
  // Of all exports, as LiveExport's.
  Task<void> await_leaving();
  // Newest first.
  Value describe() const;
  // Oldest first, but those that end: with the arguments of add().
  void each_with_arguments(
      const std::function<void(const LiveExport&, const Value& arguments)>& see) const {
    for (const auto& entry : all_)
      if (!entry->ending) see(*entry->running, entry->arguments);
  }
  void each(const std::function<void(const LiveExport&)>& see) const {
    for (const auto& entry : all_) see(*entry->running);
  }

 private:
  struct Entry {
    std::unique_ptr<LiveExport> running;
    Value arguments;
    std::shared_ptr<Iothread> thread;  // which is not deleted meanwhile; null: none
    bool ending = false;
    bool reported = true;  // its end is an event
  };
  Task<void> end(std::shared_ptr<Entry> entry);
  Task<RootPtr> attach(const ExportType& type, const Value& arguments, bool writable,
                       std::weak_ptr<Entry> entry);
  Daemon& daemon_;
  std::vector<std::shared_ptr<Entry>> all_;  // oldest first
};

}  // namespace cairn::daemon
