#include <algorithm>
#include <optional>

#include "block/throttle_group.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/objects.h"
#include "daemon/qmp_error.h"

namespace cairn::daemon {
namespace {

// What a path means: a directory of objects, an object or a character device.
struct Place {
  enum class Kind { kRoot, kBackend, kObjects, kChardevs, kObject, kChardev };
  Kind kind = Kind::kRoot;
  Objects::Entry object = {};
  Chardev* chardev = nullptr;

  std::string type() const {
    if (kind == Kind::kObject) return std::string(object.type->name);
    if (kind == Kind::kChardev) return "chardev-" + std::string(chardev->type());
    return "container";
  }
};

std::optional<Place> object_place(Daemon& daemon, std::string_view id) {
  for (Objects::Entry& entry : daemon.context().objects().list())
    if (entry.id == id) return Place{.kind = Place::Kind::kObject, .object = std::move(entry)};
  return std::nullopt;
}

std::optional<Place> chardev_place(Daemon& daemon, std::string_view id) {
  Chardev* device = daemon.chardevs().find(id);
  if (device == nullptr) return std::nullopt;
  return Place{.kind = Place::Kind::kChardev, .chardev = device};
}

Place place_of(Daemon& daemon, const std::string& path) {
  std::optional<Place> place;
  if (path == "/" || path.empty()) place = Place{.kind = Place::Kind::kRoot};
  if (path == "/backend" || path == "backend") place = Place{.kind = Place::Kind::kBackend};
  if (path == "/objects" || path == "objects") place = Place{.kind = Place::Kind::kObjects};
  if (path == "/chardevs" || path == "chardevs") place = Place{.kind = Place::Kind::kChardevs};
  const std::string_view view = path;
  if (view.starts_with("/objects/")) {
    place = object_place(daemon, view.substr(9));
  } else if (view.starts_with("/chardevs/")) {
    place = chardev_place(daemon, view.substr(10));
  } else if (!place) {
    place = object_place(daemon, view);
    std::optional<Place> device = chardev_place(daemon, view);
    if (place && device) invalid("Path '" + path + "' is ambiguous");
    if (device) place = device;
  }
  if (!place) throw QmpError::no_device("Device '" + path + "' not found");
  return *place;
}

void list_property(Value& list, std::string_view name, const std::string& type) {
  Value one = Value::object();
  one.set("name", name);
  one.set("type", type);
  list.push_back(std::move(one));
}

void list_properties(Value& list, const ObjectType& type) {
  list_property(list, "type", "string");
  for (const ObjectProperty& property : type.properties)
    list_property(list, property.name, std::string(property.type));
}

Task<Value> qom_list(Daemon& daemon, Value arguments) {
  const Place place = place_of(daemon, text_of(arguments, "path"));
  Value list = Value::array();
  if (place.kind == Place::Kind::kObject) {
    list_properties(list, *place.object.type);
    co_return list;
  }
  list_property(list, "type", "string");
  if (place.kind == Place::Kind::kRoot)
    for (const std::string_view child : {"backend", "objects", "chardevs"})
      list_property(list, child, "child<container>");
  if (place.kind == Place::Kind::kObjects)
    for (const Objects::Entry& entry : daemon.context().objects().list())
      list_property(list, entry.id, "child<" + std::string(entry.type->name) + ">");
  if (place.kind == Place::Kind::kChardevs)
    for (const auto& device : daemon.chardevs().all())
      list_property(list, device->id(), "child<chardev-" + std::string(device->type()) + ">");
  co_return list;
}

const std::string kRateNames[] = {"bps-total",  "bps-read",  "bps-write",
                                  "iops-total", "iops-read", "iops-write"};

Value shown_limits(const ThrottleLimits& limits) {
  Value shown = Value::object();
  for (int kind = 0; kind < ThrottleLimits::kKinds; ++kind) {
    const ThrottleRate& rate = limits.rates[kind];
    shown.set(kRateNames[kind], rate.average);
    shown.set(kRateNames[kind] + "-max", rate.max);
    shown.set(kRateNames[kind] + "-max-length", rate.max_length);
  }
  shown.set("iops-size", limits.iops_size);
  return shown;
}

// What a property is that was not given.
Value default_of(std::string_view property, std::string_view type) {
  if (type == "bool") return property != "loaded";
  if (type == "int") return 0;
  if (type == "QCryptoSecretFormat") return "raw";
  if (type == "QCryptoTLSCredsEndpoint") return "client";
  if (type == "QAuthZListPolicy") return "deny";
  if (type == "QAuthZListRule") return Value::array();
  return "";
}

const ObjectProperty& property_of(const Place& place, const std::string& name) {
  const auto& all = place.object.type->properties;
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const ObjectProperty& one) { return one.name == name; });
  if (found == all.end()) invalid("Property '" + place.type() + "." + name + "' not found");
  return *found;
}

Value get_property(const Place& place, const std::string& name) {
  if (name == "type") return place.type();
  if (place.kind != Place::Kind::kObject)
    invalid("Property '" + place.type() + "." + name + "' not found");
  const ObjectProperty& property = property_of(place, name);
  if (const auto thread = std::dynamic_pointer_cast<Iothread>(place.object.object))
    return thread->numbers.at(name);
  if (const auto group = std::dynamic_pointer_cast<ThrottleGroup>(place.object.object)) {
    const Value limits = shown_limits(group->limits());
    if (name == "limits") return limits;
    const Value* one = limits.find(std::string_view(name).substr(2));
    return one == nullptr ? Value() : *one;
  }
  Options properties = place.object.properties;
  const Value whole = properties.to_value();
  const Value* given = whole.find(name);
  return given != nullptr ? *given : default_of(name, property.type);
}

Task<Value> qom_get(Daemon& daemon, Value arguments) {
  co_return get_property(place_of(daemon, text_of(arguments, "path")),
                         text_of(arguments, "property"));
}

void set_limits(ThrottleGroup& group, const Value& value) {
  Value wrapped = Value::object();
  wrapped.set("limits", checked_value("ThrottleLimits", value, Form::kJson));
  Options options = Options::from_value(wrapped);
  ThrottleLimits limits = group.limits();
  limits.update(options);
  group.set_limits(limits);
}

Task<Value> qom_set(Daemon& daemon, Value arguments) {
  const Place place = place_of(daemon, text_of(arguments, "path"));
  const std::string name = text_of(arguments, "property");
  const Value& value = *arguments.find("value");
  if (name == "type") invalid("Property '" + place.type() + ".type' is not writable");
  if (place.kind != Place::Kind::kObject)
    invalid("Property '" + place.type() + "." + name + "' not found");
  property_of(place, name);
  if (const auto thread = std::dynamic_pointer_cast<Iothread>(place.object.object)) {
    const auto* number = value.get_if<int64_t>();
    if (number == nullptr) invalid("Invalid parameter type for '" + name + "', expected: integer");
    if (*number < 0) invalid(name + " value must be in range [0, 9223372036854775807]");
    thread->numbers[name] = *number;
  } else if (const auto group = std::dynamic_pointer_cast<ThrottleGroup>(place.object.object)) {
    if (name != "limits") invalid("Property cannot be set after initialization");
    set_limits(*group, value);
  } else {
    invalid("Property '" + name + "' of a " + place.type() +
            " cannot be changed; make a new object");
  }
  co_return Value::object();
}

// Kinds of objects that have one above them in QOM, and which.
struct Parent {
  std::string_view type, parent;
};
constexpr Parent kParents[] = {
    {"authz-list", "authz"},
    {"authz-list-file", "authz"},
    {"authz-simple", "authz"},
    {"iothread", "event-loop-base"},
    {"main-loop", "event-loop-base"},
    {"secret", "secret_common"},
    {"secret_keyring", "secret_common"},
    {"throttle-group", "object"},
    {"tls-creds-anon", "tls-creds"},
    {"tls-creds-psk", "tls-creds"},
    {"tls-creds-x509", "tls-creds"},
};

Task<Value> qom_list_types(Daemon&, Value arguments) {
  const std::string implements = text_of(arguments, "implements");
  Value list = Value::array();
  const auto add = [&](const std::string& name, std::string_view parent) {
    if (!implements.empty() && implements != name && implements != parent && implements != "object")
      return;
    Value one = Value::object();
    one.set("name", name);
    one.set("parent", parent);
    list.push_back(std::move(one));
  };
  for (const ObjectType& type : daemon_object_types())
    for (const Parent& row : kParents)
      if (row.type == type.name) add(std::string(type.name), row.parent);
  for (const std::string_view backend : chardev_backends())
    if (backend != "memory") add("chardev-" + std::string(backend), "chardev");
  add("container", "object");
  co_return list;
}

Task<Value> qom_list_properties(Daemon&, Value arguments) {
  const std::string name = text_of(arguments, "typename");
  Value list = Value::array();
  if (const ObjectType* type = find_object_type(name)) {
    list_properties(list, *type);
    co_return list;
  }
  const bool chardev =
      name.starts_with("chardev-") &&
      std::count(chardev_backends().begin(), chardev_backends().end(), name.substr(8)) != 0;
  if (!chardev && name != "container") throw QmpError::no_device("Class '" + name + "' not found");
  list_property(list, "type", "string");
  co_return list;
}

constexpr Command kQomCommands[] = {
    {"qom-list", qom_list},
    {"qom-get", qom_get},
    {"qom-set", qom_set},
    {"qom-list-types", qom_list_types},
    {"qom-list-properties", qom_list_properties},
};

}  // namespace

std::span<const Command> qom_commands() { return kQomCommands; }

}  // namespace cairn::daemon
