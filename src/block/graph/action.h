#pragma once

#include <memory>
#include <vector>

#include "async/task.h"

namespace cairn {

class Graph;

// One step of a transaction: a change of a running block layer that can be taken back until all
// steps are known to work. With the lock of changes held.
class GraphAction {
 public:
  virtual ~GraphAction() = default;
  // Does, or gets ready, all that can fail. Later steps see what it did. Throws; then nothing is
  // changed.
  virtual Task<void> prepare() = 0;
  // All steps are prepared. Throws nothing.
  virtual Task<void> commit() { co_return; }
  // A later step failed: makes prepare() undone. Throws nothing.
  virtual Task<void> abort() { co_return; }
};

using GraphActions = std::vector<std::unique_ptr<GraphAction>>;

// All ACTIONS at one moment in the eyes of the users, or none: throws the error of the first that
// cannot be done.
Task<void> run_transaction(Graph& graph, GraphActions actions);
// A step by itself.
Task<void> run_action(Graph& graph, std::unique_ptr<GraphAction> action);

}  // namespace cairn
