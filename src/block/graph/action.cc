#include "block/graph/action.h"

#include <exception>

#include "block/graph/graph.h"

namespace cairn {
namespace {

Task<void> run_steps(const GraphActions& actions) {
  std::exception_ptr error;
  size_t prepared = 0;
  try {
    for (; prepared < actions.size(); ++prepared) co_await actions[prepared]->prepare();
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    while (prepared-- > 0) co_await actions[prepared]->abort();
    std::rethrow_exception(error);
  }
  for (const auto& action : actions) co_await action->commit();
}

}  // namespace

Task<void> run_transaction(Graph& graph, GraphActions actions) {
  co_await graph.drained(graph.nodes(), [&] { return run_steps(actions); });
}

Task<void> run_action(Graph& graph, std::unique_ptr<GraphAction> action) {
  GraphActions actions;
  actions.push_back(std::move(action));
  co_await run_transaction(graph, std::move(actions));
}

}  // namespace cairn
