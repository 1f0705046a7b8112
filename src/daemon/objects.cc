#include "daemon/objects.h"

#include <algorithm>

#include "base/error.h"
#include "block/context.h"
#include "block/object_types.h"

namespace cairn::daemon {
namespace {

constexpr std::string_view kLoopNumbers[] = {"aio-max-batch", "thread-pool-min", "thread-pool-max"};

std::shared_ptr<Object> make_iothread(std::string_view type, const Options& properties,
                                      const Objects& others) {
  auto made = std::make_shared<Iothread>();
  for (const std::string_view name : kLoopNumbers) made->numbers.emplace(name, 0);
  made->numbers["thread-pool-max"] = 64;
  if (type == "main-loop") {
    for (const Objects::Entry& one : others.list())
      if (one.type->name == type) invalid("only one main-loop instance allowed");
  } else {
    made->numbers["poll-max-ns"] = 32768;
    made->numbers["poll-grow"] = made->numbers["poll-shrink"] = 0;
  }
  properties.mark_used("id");
  for (auto& [name, number] : made->numbers) {
    const auto given = properties.string(name);
    if (!given) continue;
    number = std::strtoll(given->c_str(), nullptr, 10);
    if (number < 0) invalid(name + " value must be in range [0, 9223372036854775807]");
  }
  return made;
}

const std::vector<ObjectType>& loop_types() {
  static const std::vector<ObjectType> types = {
      {"iothread",
       {{"aio-max-batch", "int"},
        {"poll-grow", "int"},
        {"poll-max-ns", "int"},
        {"poll-shrink", "int"},
        {"thread-pool-max", "int"},
        {"thread-pool-min", "int"}},
       make_iothread},
      {"main-loop",
       {{"aio-max-batch", "int"}, {"thread-pool-max", "int"}, {"thread-pool-min", "int"}},
       make_iothread},
  };
  return types;
}

}  // namespace

const std::vector<ObjectType>& daemon_object_types() {
  static const std::vector<ObjectType> types = [] {
    std::vector<ObjectType> all = object_types();
    all.insert(all.end(), loop_types().begin(), loop_types().end());
    std::sort(all.begin(), all.end(),
              [](const ObjectType& a, const ObjectType& b) { return a.name < b.name; });
    return all;
  }();
  return types;
}

const ObjectType* find_object_type(std::string_view name) {
  for (const ObjectType& type : daemon_object_types())
    if (type.name == name) return &type;
  return nullptr;
}

std::shared_ptr<Iothread> find_iothread(const Context& context, const std::string& id) {
  auto found = context.objects().find_as<Iothread>(id);
  if (!found) invalid("iothread \"" + id + "\" not found");
  return found;
}

}  // namespace cairn::daemon
