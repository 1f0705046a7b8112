#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/extent.h"

namespace cairn {

class Context;
class DebugPort;
class Driver;
class Node;
class RequestCounts;
class ServerWatch;
using NodePtr = std::shared_ptr<Node>;
using RequestCountsPtr = std::shared_ptr<RequestCounts>;

// What a child is for.
enum class ChildRole { kFile, kBacking, kDataFile, kExtent, kFiltered };

struct Child {
  std::string name;  // "file", "backing", "data-file", "extents.0", …
  NodePtr node;
  ChildRole role = ChildRole::kFile;
};

// What a node is: its driver, names, size, limits and children. Node adds what it does. Drivers set
// all but the length before the first request.
class NodeBase {
 public:
  NodeBase(const NodeBase&) = delete;
  NodeBase& operator=(const NodeBase&) = delete;

  Context& context() const { return context_; }
  const Driver& driver() const { return driver_; }
  // Virtual size in bytes.
  uint64_t length() const { return length_.load(std::memory_order_acquire); }
  const Limits& limits() const { return limits_; }
  bool read_only() const { return read_only_; }
  // The name under which the node was opened, as people know it: a path, an URI or `json:{…}`.
  const std::string& filename() const { return filename_; }
  const std::string& node_name() const { return node_name_; }
  const std::vector<Child>& children() const { return children_; }
  Node* child(std::string_view name) const;
  Node* file() const { return child("file"); }
  Node* backing() const { return backing_; }
  // The layer below in the backing chain, also where filters are in between; null where there is
  // none.
  Node* layer_below() const;
  // What the node passes everything through to without a structure of its own; null for all but
  // filters and raw without offset.
  Node* filtered() const { return filtered_; }
  // Where faults are injected and requests stopped: the nearest fault filter at or below this node;
  // null without one.
  DebugPort* debug_port() const {
    return own_debug_port_ != nullptr ? own_debug_port_ : debug_port_;
  }

  // The requests that were made of the node so far; null while nothing counts them. From any
  // thread.
  RequestCounts* counts() const { return counting_.load(std::memory_order_acquire); }

 protected:
  NodeBase(Context& context, const Driver& driver);
  ~NodeBase() = default;

  // Requests are counted there from now on. Once, or while there are none.
  void count_requests(RequestCountsPtr counts) {
    counts_ = std::move(counts);
    counting_.store(counts_.get(), std::memory_order_release);
  }

  void set_length(uint64_t length) { length_.store(length, std::memory_order_release); }
  // Never lowers it: of several writers that move the end at once the farthest wins.
  void raise_length(uint64_t length) {
    uint64_t before = length_.load(std::memory_order_relaxed);
    while (before < length &&
           !length_.compare_exchange_weak(before, length, std::memory_order_release)) {
    }
  }
  Limits& mutable_limits() { return limits_; }
  // The name that people know, where the driver knows a better one than how it was opened.
  void set_filename(std::string name) { filename_ = std::move(name); }
  void set_read_only(bool read_only) { read_only_ = read_only; }
  void add_child(std::string name, NodePtr node, ChildRole role);
  // An unbounded node reads zeroes past its end and grows when written there: what formats need
  // of their files. True for protocols unless they say otherwise.
  void set_unbounded(bool unbounded) { unbounded_ = unbounded; }
  // The node passes everything through to NODE, a child.
  void set_filtered(Node* node) { filtered_ = node; }
  // PORT, a part of this node, is what debug_port() gives.
  void set_debug_port(DebugPort* port) { own_debug_port_ = port; }
  // The driver splits write_zeroes into data and zero parts itself. Otherwise the request layer
  // does, at the granularity of limits().zero_alignment.
  void set_splits_zeroes() { splits_zeroes_ = true; }
  // The server of a remote protocol, once the node is open: for Reconnecting.
  const std::shared_ptr<ServerWatch>& server() const { return server_; }
  // The fault filter below, to which drivers report points that they reach: null almost always.
  DebugPort* debug_below() const { return debug_port_; }

 private:
  friend class Graph;
  friend class Node;
  friend class Opener;
  friend class Reopener;
  friend class Root;
  // NODE becomes the child NAME, in the place of the one that was; null: there is none from then
  // on. No request may be under way. ROLE counts for a child that is new.
  void replace_child(std::string_view name, NodePtr node, ChildRole role);

  Context& context_;
  const Driver& driver_;
  std::atomic<uint64_t> length_{0};
  Limits limits_;
  bool read_only_ = true;
  bool unbounded_;
  bool splits_zeroes_ = false;
  bool stores_another_ = false;  // a node above, such as a format, chooses what is written where
  std::string filename_;
  std::string node_name_;
  std::vector<Child> children_;
  Node* backing_ = nullptr;
  Node* filtered_ = nullptr;
  std::shared_ptr<ServerWatch> server_;  // null: not remote
  DebugPort* debug_port_ = nullptr;
  DebugPort* own_debug_port_ = nullptr;
  std::atomic<RequestCounts*> counting_{nullptr};
  RequestCountsPtr counts_;
};

}  // namespace cairn
