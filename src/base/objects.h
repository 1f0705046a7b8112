#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"

namespace cairn {

// What a user of the library names and makes once, and disks and servers refer to by its ID: a
// secret, TLS credentials, a list of who may connect, a budget of requests.
class Object {
 public:
  virtual ~Object() = default;
};

class Objects;

// One property of a kind of object, as help shows it.
struct ObjectProperty {
  std::string_view name;
  std::string_view type;   // "string", "int", "bool", or the name of a structure or list of words
  bool extension = false;  // shown only where extensions are offered
};

// A kind of object. The room that owns the class has the row.
struct ObjectType {
  std::string_view name;
  std::vector<ObjectProperty> properties;  // in the order of help
  // Makes one of this type. PROPERTIES has an "id"; OTHERS are those that exist, to which
  // properties may refer. Throws kInvalid with QEMU's wording, or what reading a file said.
  std::shared_ptr<Object> (*make)(std::string_view type, const Options& properties,
                                  const Objects& others);
};

// Objects by ID. From any thread.
class Objects {
 public:
  struct Entry {
    std::string id;
    const ObjectType* type = nullptr;
    Options properties;  // with which it was made
    std::shared_ptr<Object> object;
  };

  bool contains(std::string_view id) const { return find(id) != nullptr; }
  // Null when there is none.
  std::shared_ptr<Object> find(std::string_view id) const;
  // Null when there is none of this class.
  template <class T>
  std::shared_ptr<T> find_as(std::string_view id) const {
    return std::dynamic_pointer_cast<T>(find(id));
  }
  // Makes an object of TYPE. Throws kInvalid with QEMU's wording when the ID is missing, malformed
  // or taken, or what making it throws; nothing is added then.
  void add(const ObjectType& type, const Options& properties);
  // Forgets an object; who has it keeps it. False when there is none.
  bool remove(std::string_view id);
  // All, oldest first.
  std::vector<Entry> list() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;  // oldest first
};

}  // namespace cairn
