#pragma once

#include <cstdint>
#include <string_view>

#include "base/options.h"
#include "base/value.h"
#include "block/dirty_bitmap.h"
#include "block/graph/recipes.h"

// What two daemons say to each other, as JSON. What is read comes from a daemon of the same user,
// but maybe of another version: a member that is missing, or of another kind, throws kInvalid.
namespace cairn::daemon {

// OPTIONS by their dotted names.
Value fields_of(const Options& options);
Options options_in(const Value& fields);

Value fields_of(const NodeRecipe& recipe);
NodeRecipe recipe_in(const Value& fields);

// The elements of the array NAME of OBJECT.
const Value::Array& elements_of(const Value& object, std::string_view name);
// The member NAME of OBJECT.
const Value& member_of(const Value& object, std::string_view name);
uint64_t unsigned_in(const Value& value);

// Offset and length of each run that is dirty, one after the other.
Value runs_of(const DirtyBitmap& bitmap);
void mark_runs(DirtyBitmap& bitmap, const Value::Array& runs);

}  // namespace cairn::daemon
