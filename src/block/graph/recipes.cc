#include "block/graph/recipes.h"

#include <algorithm>
#include <set>

#include "block/capabilities/opened_once.h"
#include "block/graph/reopen.h"
#include "block/opener.h"

namespace cairn {

void check_recipes(Graph& graph) {
  for (const NodePtr& node : graph.nodes()) {
    const std::string name = "Node '" + node->node_name() + "' ";
    if (node->as<OpenedOnce>() != nullptr)
      throw Error(
          ErrorKind::kUnsupported,
          name + "has a state that would be lost, such as a moment of a disk: remove it first");
    if (!graph.info(*node).active)
      throw Error(ErrorKind::kUnsupported, name + "is inactive: activate or remove it first");
  }
}

std::vector<NodeRecipe> node_recipes(Graph& graph) {
  check_recipes(graph);
  std::set<const Node*> all;
  for (const NodePtr& node : graph.nodes()) all.insert(node.get());
  return node_recipes(graph, all);
}

std::vector<NodeRecipe> node_recipes(Graph& graph, const std::set<const Node*>& only) {
  const Reopener reopener(graph);
  std::vector<NodeRecipe> recipes;
  std::set<std::string> listed;
  std::vector<NodePtr> left;
  for (const NodePtr& node : graph.nodes())
    if (only.contains(node.get()) && !reopener.opened_by_parent(*node)) left.push_back(node);
  while (!left.empty()) {
    // What is in no other's way; graphs have no cycles.
    const auto next = std::find_if(left.begin(), left.end(), [&](const NodePtr& node) {
      return std::none_of(left.begin(), left.end(), [&](const NodePtr& other) {
        return other != node && Graph::reaches(*node, *other);
      });
    });
    const GraphNode& known = graph.info(**next);
    NodeRecipe recipe;
    recipe.name = (*next)->node_name();
    recipe.options = reopener.options_of(**next);
    recipe.flags = known.flags;
    recipe.owned = known.owned;
    recipes.push_back(std::move(recipe));
    left.erase(next);
  }
  return recipes;
}

Task<void> Graph::open_again(NodeRecipe recipe) {
  if (find(recipe.name) != nullptr)
    throw Error(ErrorKind::kExists, "Duplicate nodes with node-name='" + recipe.name + "'");
  const bool made = recipe.name.starts_with('#');
  const size_t before = nodes_.size();
  co_await on_failure(
      [&]() -> Task<void> {
        Opener::Spot spot;
        spot.options = recipe.options;
        if (!made) spot.options.set("node-name", recipe.name);
        spot.flags = recipe.flags;
        spot.flags.nodes = this;
        const NodePtr node = co_await Opener::open(context_, std::move(spot));
        info(*node).owned = recipe.owned;
        if (made) {
          std::lock_guard lock(list_mutex_);
          node->node_name_ = recipe.name;
        }
        co_await apply_permissions();
      },
      [&] { return drop_since(before); });
}

}  // namespace cairn
