#pragma once

#include <functional>
#include <memory>
#include <string>

#include "block/graph/request_gate.h"
#include "block/node.h"
#include "block/permissions.h"
#include "block/request_counts.h"

namespace cairn {

// A user that has work of its own between its requests, such as a job: it is asked to rest before
// its requests are held back, because what waits for something that it holds could not end
// otherwise.
class RootOwner {
 public:
  // When it returns, the owner has no request under way and holds nothing for which requests of
  // others wait. One that waits for the Graph's lock, or has it, rests already. Calls nest; each
  // is followed by wake(). From the worker that changes the graph.
  virtual Task<void> rest() = 0;
  virtual void wake() = 0;

 protected:
  ~RootOwner() = default;
};

// What a user does with a node, and what it lets others do meanwhile (Permissions::k…).
struct NodeUse {
  std::string user = "an unnamed block device";  // in messages; "mirror job 'j0'"
  std::string job = {};                          // ID of the job that it is a part of
  std::string role = "root";                     // in messages; "main node", "source", …
  uint8_t takes = 0;
  uint8_t shares = Permissions::kAll;
  // Why commands may not change the node meanwhile, after "Node 'N' is busy: "; empty: they may.
  std::string blocks = {};
  // Called when a request of the user has failed, from any worker; OFFSET is 0 for flushes.
  std::function<void(RequestKind kind, uint64_t offset, const Error& error)> failed = {};
  // Called when the node has got another size, while no request is under way.
  std::function<void()> resized = {};
  bool allows_inactive = false;  // it works with a node that others may write as well
  RootOwner* owner = nullptr;    // null: a user that only answers requests, such as an export
};

// The hold that a user has on a node of a Graph. It passes everything on to the node, whose
// capabilities it has as well, and can be held back and moved to another node without its user
// seeing more than a slow request. Made by Graph::attach().
//
// Capabilities are called past the gate: who uses them has an owner. A node above others has
// children, never a Root: requests that wait for requests of other Roots could not be held back.
class Root : public Node {
 public:
  Root(NodePtr node, NodeUse use);

  const NodePtr& node() const { return below_; }
  const NodeUse& use() const { return use_; }
  Task<Extent> extent_at(uint64_t offset, uint64_t max) override;

 protected:
  void* find_capability(CapabilityId id) override { return below_->find_capability(id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_resize(ResizeRequest request) override;

 private:
  friend class Graph;
  friend class Reopener;
  // No request begins from now on; those under way have ended. Each call needs its resume().
  Task<void> pause();
  void resume() { gate_.open(); }
  // Between requests.
  void move_to(NodePtr node);
  void refresh();
  void tell_failure(RequestKind kind, uint64_t offset, const Error& error) const {
    if (use_.failed) use_.failed(kind, offset, error);
  }
  void set_use(uint8_t takes, uint8_t shares);

  RequestGate gate_;
  NodePtr below_;
  NodeUse use_;
};

using RootPtr = std::shared_ptr<Root>;

}  // namespace cairn
