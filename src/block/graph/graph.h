// src/block/graph: the block layer of a program that runs on: nodes with names that are added,
// exchanged and removed while others work with them. Graph has them, with what each user does and
// what it lets others do (edges.h); a Root (root.h) is the hold of one user, which can be held back
// (request_gate.h) and moved. May include src/block. Verbs that open an image, do one thing and
// close it again need none of this.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "async/finally.h"
#include "async/sync.h"
#include "base/options.h"
#include "block/graph/root.h"
#include "block/node.h"
#include "block/open.h"

namespace cairn {

// What a Graph knows of a node.
struct GraphNode {
  NodePtr node;
  Options options;     // its own, as it was opened; without its name and its children
  OpenFlags flags;     // what these do not say
  bool owned = false;  // added by name: stays until it is removed by name
  bool writable_if_active =
      false;                // of an inactive one: that it is read-only is for the time being
  bool active = true;       // holds locks, may be written
  Permissions locked = {};  // what its storage is locked for
  unsigned frozen = 0;      // how many jobs rely on its backing link
};

// What is shown of a node that is counted.
struct CountedNode {
  std::string name;
  NodePtr node;
  RequestCountsPtr counts;
};

// The named nodes of a running block layer. All methods are called with the lock of changes held,
// by one task at a time; what they do to nodes, users of these nodes see as slow requests. A change
// that throws leaves the graph as it was, as far as it says nothing else.
class Graph : private OpenedNodes {
 public:
  explicit Graph(Context& context) : context_(context) {}

  Context& context() const { return context_; }
  // LISTENER is called with every node that comes, before anybody uses it. Once, at first.
  void set_listener(std::function<void(Node&)> listener) { listener_ = std::move(listener); }
  // const auto change = co_await graph.change();
  Mutex::Awaiter change() { return changes_.lock(); }

  // Opens a tree whose top node gets its name from the option node-name and stays until remove().
  // OPTIONS: the nested object that blockdev-add takes, flattened; children are trees of their own
  // or names of nodes. Throws in QEMU's words.
  Task<NodePtr> add(Options options);
  // Opens the image FILENAME, as people write names, for who attaches to it next: it goes when
  // nobody uses it (sweep()). OPTIONS as above, but the name may be missing: one is made.
  Task<NodePtr> open(std::string filename, Options options);
  // Opens a node as a recipe says (node_recipes()), when its children are there. Throws as add().
  Task<void> open_again(struct NodeRecipe recipe);
  // Takes a node back that add() gave, and closes what nobody uses any more.
  Task<void> remove(std::string name);
  // Makes a node known that a job made over nodes of this graph; NAME empty: a name is made. It
  // goes when nobody uses it (sweep()).
  void adopt(NodePtr node, const std::string& name);
  // Null where there is none of that name.
  NodePtr find(std::string_view name) const;
  // Throws "Cannot find device='' nor node-name='NAME'".
  NodePtr get(std::string_view name) const;
  // The same as a command names it that takes devices as well: "Cannot find device='NAME' nor
  // node-name='NAME'".
  NodePtr lookup(std::string_view name) const;
  // Newest first.
  std::vector<NodePtr> nodes() const;
  GraphNode& info(const Node& node);
  // Throws kExists, or kInvalid where it is no name.
  void check_new_name(const std::string& name) override;

  // A user begins to work with NODE, as USE says. Throws "Permission conflict on node …", what
  // locking the storage throws, or "Block node is read-only".
  Task<RootPtr> attach(NodePtr node, NodeUse use);
  // A user ends; nodes that nobody uses are closed.
  Task<void> detach(RootPtr root);
  // The same user does something else from now on. Throws as attach().
  Task<void> change_use(RootPtr root, uint8_t takes, uint8_t shares);
  const std::vector<RootPtr>& roots() const { return roots_; }

  // The requests that each user makes, and those that are made of each node, are counted from now
  // on, also of users and nodes that come later. Once or more.
  void count_requests();
  // The nodes, oldest first; empty before count_requests(). From any thread, and without the lock.
  std::vector<CountedNode> counted_nodes() const;

  // Throws "Node 'N' is busy: …" where a user keeps commands from changing NODE.
  void check_free(const Node& node) const;
  // The same where a job works on NODE, whatever else it lets commands do.
  void check_no_job(const Node& node) const;
  // The same where NODE is the backing file of another one.
  void check_no_overlay(const Node& node) const;
  // Names of the nodes that have NODE as a child, oldest first.
  std::vector<Node*> parents(const Node& node) const;
  // The Roots on NODE itself.
  std::vector<RootPtr> users(const Node& node) const;
  // True when LOWER is NODE or below it, on whatever way.
  static bool reaches(const Node& node, const Node& lower);

  // The backing links from TOP down to BASE are not changed until thaw() with the same two. Throws
  // where one is kept already. BASE null: all links.
  void freeze(const Node& top, const Node* base);
  void thaw(const Node& top, const Node* base);
  // Throws "Cannot change frozen 'backing' link from 'A' to 'B'" where a job relies on the link.
  void check_link(const Node& overlay);

  // With ON the users that come from then on, but for jobs, have no request carried out, until the
  // call without it: what is to be between them and their nodes can be put there.
  Task<void> hold_new_users(bool on);
  // With ON no request waits in a node that delays them on purpose, until the call without it.
  void hurry(bool on) const;
  // Does WORK while no request is in any of NODES, nor comes into them.
  template <GivesNothing Work>
  Task<void> drained(std::vector<NodePtr> nodes, Work work) {
    const std::vector<RootPtr> held = roots_above(nodes);
    co_await hold(held);
    std::exception_ptr error;
    try {
      co_await work();
    } catch (...) {
      error = std::current_exception();
    }
    let_go(held);
    if (error) std::rethrow_exception(error);
  }

  // What uses FROM uses TO from then on: the nodes above it, other than TO and what is below TO,
  // and the Roots for which MOVES, where given, says yes.
  using Choice = std::function<bool(const Root&)>;
  Task<void> replace(NodePtr from, NodePtr to, Choice moves = nullptr);
  // BACKING, null for none, becomes the backing file of OVERLAY, in the graph alone: the image is
  // not changed. Throws "Cannot change frozen 'backing' link from 'A' to 'B'".
  Task<void> set_backing(NodePtr overlay, NodePtr backing);
  // NODE becomes a child of the DiskSet PARENT, or the child NAME is none any more.
  Task<void> add_disk(NodePtr parent, NodePtr node);
  Task<void> take_disk(NodePtr parent, std::string name);
  // The size of NODE was changed, between requests: the filters above follow.
  void follow_length(const Node& node);
  // Closes the nodes that nobody owns or uses. Nothing throws: errors are warnings.
  Task<void> sweep();
  // While KEEP was true last, sweep() leaves the nodes: their users are about to come.
  void keep_unused(bool keep) { keeps_unused_ = keep; }
  // Takes what is needed where permissions changed, and gives back what is not. Throws as attach().
  Task<void> apply_permissions();
  // Closes everything, at the end. The users have gone.
  Task<void> close();

 private:
  friend class Reopener;
  NodePtr find_opened(std::string_view name) override { return find(name); }
  void opened(NodePtr node, Options options, const OpenFlags& flags) override;

  std::vector<RootPtr> roots_above(const std::vector<NodePtr>& nodes) const;
  static Task<void> hold(std::vector<RootPtr> roots);
  static void let_go(const std::vector<RootPtr>& roots);
  void exchange_child(Node& parent, std::string_view name, NodePtr node);
  Task<void> drop_since(size_t first);
  Task<void> drop(size_t index);
  Task<NodePtr> open_spot(std::string filename, Options options, bool owned);
  bool in_use(const Node& node) const;
  void forget(size_t index);

  Context& context_;
  std::function<void(Node&)> listener_;
  Mutex changes_;
  // Held where nodes_ changes, for those who look without the lock of changes.
  mutable std::mutex list_mutex_;
  bool counting_ = false;
  bool keeps_unused_ = false;
  bool holding_ = false;
  std::vector<RootPtr> held_;     // that came since
  std::vector<GraphNode> nodes_;  // oldest first
  std::vector<RootPtr> roots_;    // oldest first
};

}  // namespace cairn
