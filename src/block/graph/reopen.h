#pragma once

#include <map>
#include <string>
#include <vector>

#include "block/graph/graph.h"

namespace cairn {

// Opens nodes of a graph again, all or none, while their users wait: the way in which options of
// nodes change. Each is another object afterwards, with the same name, bitmaps and users: who keeps
// a node over a change of the graph keeps a Root. Where a format has such a node as its file, it is
// opened again as well.
class Reopener {
 public:
  explicit Reopener(Graph& graph) : graph_(graph) {}

  // The whole options of a node, node-name among them, as blockdev-reopen takes them: what is left
  // out gets its default, children that are left out stay. Options of a child that was opened by
  // options are the whole options of that. Throws in QEMU's words, and where a job
  // works on the node.
  void add(Options options);
  // As it is, but read-only or not, and so for the files that are its alone.
  void add(const NodePtr& node, bool writable);
  // As it is: what others wrote meanwhile is seen.
  void add(const NodePtr& node) { item_of(node); }
  // Options that open NODE as it is over nodes that are open, less its name.
  Options options_of(const Node& node) const;
  // True where the nodes above NODE open it themselves, as formats do with their extents.
  bool opened_by_parent(const Node& node) const;
  // Once. Throws what opening throws; then all nodes are as before.
  Task<void> run();

 private:
  // How to open a node.
  struct Recipe {
    Options options;
    OpenFlags flags;
    std::map<std::string, std::string> children;  // names of nodes; empty: no such child
    Options whole() const;                        // with the children
  };
  struct Item {
    NodePtr node;
    Recipe before;
    Recipe after;
    bool open = true;
  };

  Item& item_of(const NodePtr& node);
  Recipe recipe_of(const Node& node) const;
  bool opened_for_parent(const std::string& name) const;
  void take_children(Item& item, Options& options,
                     std::vector<std::pair<NodePtr, Options>>& inside);
  void take_options(const NodePtr& node, Options options, bool writable);
  void set_writable(Item& item, bool writable);
  void add_parents();
  void check_writers() const;
  void sort_items();
  Task<void> exchange();
  Task<void> close_items();
  Task<void> open_items(Recipe Item::*recipe);
  Task<void> open_item(Item& item, Recipe recipe);
  void settle(const std::vector<NodePtr>& old);

  Graph& graph_;
  bool by_command_ = false;
  std::vector<Item> items_;  // in run(): those above others first
};

// NODE, which may be writable already or not, becomes so; gives what it is then. Throws as
// Reopener::run().
Task<NodePtr> reopen_as(Graph& graph, NodePtr node, bool writable);

}  // namespace cairn
