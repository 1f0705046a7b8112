#pragma once

#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "async/task.h"
#include "base/options.h"

namespace cairn {

class Context;
class Node;
enum class Preallocation;

// The bytes of the secret whose ID the option KEY gives; empty without the option. Throws "No
// secret with id 'ID'".
std::string secret_option(const Context& context, const Options& options, const char* key);

// The number that the option KEY gives, else USUAL. Throws kInvalid when it is not between LOW and
// HIGH.
unsigned bounded_option(const Options& options, const char* key, unsigned low, unsigned high,
                        unsigned usual);

// Throws kUnsupported unless MODE is kOff: for storage whose space cannot be asked for beforehand.
void refuse_preallocation(Preallocation mode);

// Options of creation where there is nothing to choose but the size.
const OptionSchema& size_option();

// Awaits WORK, and THING.close() when WORK fails. Throws what WORK threw.
template <class ThingClass>
Task<void> work_or_close(ThingClass& thing, Task<void> work) {
  std::exception_ptr error;
  try {
    co_await std::move(work);
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  co_await thing.close();
  std::rethrow_exception(error);
}

// Awaits NODE.connect(), and closes the node when that fails.
template <class NodeClass>
Task<void> connect_or_close(NodeClass& node) {
  return work_or_close(node, node.connect());
}

// NODE, connected; closed when that fails. Throws.
template <class NodeClass>
Task<std::shared_ptr<Node>> connected(std::shared_ptr<NodeClass> node) {
  co_await connect_or_close(*node);
  co_return node;
}

// Awaits WORK, then THING.close(), also when WORK fails. Throws what either threw.
template <class ThingClass>
Task<void> work_and_close(ThingClass& thing, Task<void> work) {
  std::exception_ptr error;
  try {
    co_await std::move(work);
  } catch (...) {
    error = std::current_exception();
  }
  co_await thing.close();
  if (error) std::rethrow_exception(error);
}

}  // namespace cairn
