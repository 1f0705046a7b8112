#include "block/throttle_group.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/objects.h"

namespace cairn::daemon {
namespace {

Task<Value> object_add(Daemon& daemon, Value arguments) {
  std::string name = text_of(arguments, "qom-type");
  if (name == "authz-listfile") name = "authz-list-file";
  const ObjectType* type = find_object_type(name);
  if (type == nullptr) invalid("invalid object type: " + name);
  Options properties = Options::from_value(arguments);
  properties.erase("qom-type");
  daemon.context().add_object(*type, properties);
  co_return Value::object();
}

// What holds an object that others rely on by its name.
bool in_use(const std::shared_ptr<Object>& object) {
  const bool counted = std::dynamic_pointer_cast<ThrottleGroup>(object) != nullptr ||
                       std::dynamic_pointer_cast<Iothread>(object) != nullptr;
  // The list of objects has one, and the caller of this function.
  return counted && object.use_count() > 2;
}

Task<Value> object_del(Daemon& daemon, Value arguments) {
  const std::string id = text_of(arguments, "id");
  const std::shared_ptr<Object> object = daemon.context().objects().find(id);
  if (object == nullptr) invalid("object '" + id + "' not found");
  if (in_use(object)) invalid("object '" + id + "' is in use, can not be deleted");
  daemon.context().remove_object(id);
  co_return Value::object();
}

constexpr Command kObjectCommands[] = {
    {"object-add", object_add},
    {"object-del", object_del},
};

}  // namespace

std::span<const Command> object_commands() { return kObjectCommands; }

}  // namespace cairn::daemon
