#include "operation/commit.h"

#include <set>

#include "block/capabilities/backing_link.h"
#include "block/driver.h"
#include "job/commit.h"
#include "operation/snapshot_guard.h"
#include "platform/file.h"

namespace cairn::operation {
namespace {

// Names of one file compare as real paths, others as they are.
std::string identity(const std::string& name) {
  const std::string path = platform::canonical(name);
  return path.empty() ? name : path;
}

// Opens the layers above the base one by one, each without its backing file: the base is written
// while they are read.
class Committing {
 public:
  Committing(Caller& caller, CommitOptions plan) : caller_(caller), plan_(std::move(plan)) {}

  Task<void> run() {
    std::exception_ptr error;
    try {
      co_await open_layers();
      for (const NodePtr& layer : layers_)
        check_snapshots_stay(caller_, *layer, layer->filename(), plan_.force);
      Commit job(layers_, base_, plan_.rate, caller_.cancel);
      job.progress = [this](uint64_t done, uint64_t total) { caller_.progress(done, total); };
      try {
        co_await job.run();
      } catch (const Error& caught) {
        if (caught.kind() == ErrorKind::kCancelled) throw;
        throw caught.behind("Block job failed: " + caught.cause());
      }
      if (plan_.empty_top) co_await make_empty(*layers_.front());
    } catch (...) {
      error = std::current_exception();
    }
    if (base_) base_name_ = base_->filename();
    layers_.push_back(base_);
    for (const NodePtr& node : layers_) {
      if (!node) continue;
      try {
        co_await node->close();
      } catch (Error& caught) {
        if (!error)
          error = std::make_exception_ptr(caught.context("Error while closing the image"));
      }
    }
    if (error) std::rethrow_exception(error);
  }

  const std::string& base_name() const { return base_name_; }

 private:
  Task<void> open_layers() {
    OpenRequest request = std::move(plan_.top);
    request.flags.writable = plan_.empty_top;
    std::set<std::string> seen;
    while (true) {
      request.flags.no_backing = true;
      request.flags.cache = plan_.cache;
      NodePtr layer = co_await open_layer(std::move(request));
      layers_.push_back(layer);
      const std::string stored = backing_name_of(*layer);
      if (stored.empty()) {
        if (!plan_.base) throw Error(ErrorKind::kInvalid, "Image does not have a backing file");
        throw Error(ErrorKind::kInvalid, "Did not find '" + *plan_.base +
                                             "' in the backing chain of '" + plan_.name + "'");
      }
      const std::string below = resolve_backing_name(*layer, stored);
      if (!seen.insert(identity(below)).second || seen.size() > 200)
        throw Error(ErrorKind::kInvalid, "Backing file '" + below + "' creates an infinite loop.");
      request = OpenRequest{};
      request.filename = below;
      request.format = backing_format_of(*layer);
      if (!plan_.base || below == *plan_.base) break;
      if (!plan_.base->empty() &&
          identity(below) == identity(resolve_backing_name(*layer, *plan_.base)))
        break;
    }
    request.flags.writable = true;
    // Only block 0 is protected: that fails when it is written.
    request.flags.quiet_probe = true;
    request.flags.resize = true;
    request.flags.discard_unmap = true;
    request.flags.cache = plan_.cache;
    base_ = co_await open_layer(std::move(request));
  }

  Task<NodePtr> open_layer(OpenRequest request) {
    const bool below = !layers_.empty();
    request.bare_errors = below;
    try {
      NodePtr layer = co_await open_node(caller_.context, std::move(request));
      co_return layer;
    } catch (Error& error) {
      if (!below) throw;
      throw error.context("Could not open '" + plan_.name + "': Could not open backing file");
    }
  }

  Caller& caller_;
  CommitOptions plan_;
  std::vector<NodePtr> layers_;
  NodePtr base_;
  std::string base_name_;
};

}  // namespace

Task<std::string> commit(Caller& caller, CommitOptions options) {
  Committing work(caller, std::move(options));
  co_await work.run();
  co_return work.base_name();
}

}  // namespace cairn::operation
