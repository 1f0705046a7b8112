#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/objects.h"

namespace cairn {
class Context;
}

namespace cairn::daemon {

// An "iothread": where an export says it wants to be served. Requests are served by all workers
// whatever it says; its numbers are kept for those who ask.
class Iothread : public Object {
 public:
  std::map<std::string, int64_t, std::less<>> numbers;
};

// Every kind of object that the daemon makes, by name: those of src/block/object_types.h and
// "iothread" and "main-loop", which only a daemon has.
const std::vector<ObjectType>& daemon_object_types();
// Null when there is none.
const ObjectType* find_object_type(std::string_view name);

// Throws "iothread "ID" not found".
std::shared_ptr<Iothread> find_iothread(const Context& context, const std::string& id);

}  // namespace cairn::daemon
