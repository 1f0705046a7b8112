#include "base/objects.h"

#include <cctype>

#include "base/error.h"

namespace cairn {
namespace {

bool well_formed_id(std::string_view id) {
  if (id.empty() || !std::isalpha(static_cast<unsigned char>(id[0]))) return false;
  for (char c : id)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.' && c != '_')
      return false;
  return true;
}

Error duplicate(const std::string& id) {
  return Error(ErrorKind::kInvalid,
               "attempt to add duplicate property '" + id + "' to object (type 'container')");
}

}  // namespace

std::shared_ptr<Object> Objects::find(std::string_view id) const {
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_)
    if (entry.id == id) return entry.object;
  return nullptr;
}

bool Objects::remove(std::string_view id) {
  const std::lock_guard lock(mutex_);
  return std::erase_if(entries_, [&](const Entry& entry) { return entry.id == id; }) != 0;
}

std::vector<Objects::Entry> Objects::list() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

void Objects::add(const ObjectType& type, const Options& properties) {
  const auto id = properties.string("id");
  if (!id) throw Error(ErrorKind::kInvalid, "Parameter 'id' is missing");
  if (!well_formed_id(*id))
    throw Error(ErrorKind::kInvalid, "Parameter 'id' expects an identifier")
        .hint("Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
  if (contains(*id)) throw duplicate(*id);
  std::shared_ptr<Object> made = type.make(type.name, properties, *this);
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_)
    if (entry.id == *id) throw duplicate(*id);
  entries_.push_back({*id, &type, properties, std::move(made)});
}

}  // namespace cairn
