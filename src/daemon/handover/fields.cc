#include "daemon/handover/fields.h"

#include "base/error.h"
#include "daemon/commands/commands.h"

namespace cairn::daemon {
namespace {

struct FlagName {
  const char* name;
  bool OpenFlags::*member;
};
// What a running block layer opens its nodes with.
constexpr FlagName kFlagNames[] = {
    {"writable", &OpenFlags::writable},
    {"no-backing", &OpenFlags::no_backing},
    {"force-share", &OpenFlags::force_share},
    {"unshare-write", &OpenFlags::unshare_write},
    {"unshare-resize", &OpenFlags::unshare_resize},
    {"resize", &OpenFlags::resize},
    {"discard-unmap", &OpenFlags::discard_unmap},
    {"cached", &OpenFlags::cached},
};
struct CacheName {
  const char* name;
  bool CacheMode::*member;
};
constexpr CacheName kCacheNames[] = {
    {"direct", &CacheMode::direct},
    {"no-flush", &CacheMode::no_flush},
    {"write-through", &CacheMode::write_through},
};

[[noreturn]] void malformed(std::string_view name) {
  invalid("What the other daemon says has no proper '" + std::string(name) + "'");
}

}  // namespace

Value fields_of(const Options& options) {
  Value fields = Value::object();
  for (const auto& [key, value] : options.items()) fields.set(key, value);
  return fields;
}

Options options_in(const Value& fields) {
  const auto* members = fields.get_if<Value::Object>();
  if (members == nullptr) malformed("options");
  Options options;
  for (const auto& [key, value] : *members) options.set(key, value);
  return options;
}

Value fields_of(const NodeRecipe& recipe) {
  Value flags = Value::object();
  for (const FlagName& one : kFlagNames) flags.set(one.name, recipe.flags.*one.member);
  for (const CacheName& one : kCacheNames) flags.set(one.name, recipe.flags.cache.*one.member);
  Value fields = Value::object();
  fields.set("name", recipe.name);
  fields.set("options", fields_of(recipe.options));
  fields.set("flags", std::move(flags));
  fields.set("owned", recipe.owned);
  return fields;
}

NodeRecipe recipe_in(const Value& fields) {
  NodeRecipe recipe;
  recipe.name = text_of(fields, "name");
  if (recipe.name.empty()) malformed("name");
  recipe.options = options_in(member_of(fields, "options"));
  const Value& flags = member_of(fields, "flags");
  for (const FlagName& one : kFlagNames) recipe.flags.*one.member = flag_of(flags, one.name, false);
  for (const CacheName& one : kCacheNames)
    recipe.flags.cache.*one.member = flag_of(flags, one.name, false);
  recipe.owned = flag_of(fields, "owned", false);
  return recipe;
}

const Value& member_of(const Value& object, std::string_view name) {
  const Value* found = object.find(name);
  if (found == nullptr) malformed(name);
  return *found;
}

const Value::Array& elements_of(const Value& object, std::string_view name) {
  const auto* elements = member_of(object, name).get_if<Value::Array>();
  if (elements == nullptr) malformed(name);
  return *elements;
}

uint64_t unsigned_in(const Value& value) {
  if (const auto* number = value.get_if<uint64_t>()) return *number;
  const auto* number = value.get_if<int64_t>();
  if (number == nullptr || *number < 0) malformed("number");
  return static_cast<uint64_t>(*number);
}

Value runs_of(const DirtyBitmap& bitmap) {
  Value runs = Value::array();
  for (uint64_t at = 0; at < bitmap.length();) {
    const DirtyBitmap::Run run = bitmap.run_at(at, bitmap.length() - at);
    if (run.dirty) {
      runs.push_back(at);
      runs.push_back(run.length);
    }
    at += run.length;
  }
  return runs;
}

void mark_runs(DirtyBitmap& bitmap, const Value::Array& runs) {
  for (size_t i = 0; i + 1 < runs.size(); i += 2)
    bitmap.mark(unsigned_in(runs[i]), unsigned_in(runs[i + 1]));
}

}  // namespace cairn::daemon
