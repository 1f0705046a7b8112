#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <tuple>

#include "base/bytes.h"

namespace cairn {

// An integer of a structure on disk: its offset in bytes from the structure's start, and the member
// that holds it. The member's type is as wide as the integer on disk.
template <class Structure, std::unsigned_integral Integer>
struct Field {
  size_t offset;
  Integer Structure::*member;
};
template <class Structure, class Integer>
Field(int, Integer Structure::*) -> Field<Structure, Integer>;

// The integers of a structure in one table, so that what reads them and what writes them agree.
// Both throw kInvalid where a field is outside of BYTES.
template <std::endian kOrder, class... Fields>
class FieldTable {
 public:
  constexpr explicit FieldTable(Fields... fields) : fields_(fields...) {}

  template <class Structure>
  void load(ByteSpan bytes, Structure& structure) const {
    std::apply([&](const auto&... field) { (load_one(bytes, structure, field), ...); }, fields_);
  }
  template <class Structure>
  void store(MutableByteSpan bytes, const Structure& structure) const {
    std::apply([&](const auto&... field) { (store_one(bytes, structure, field), ...); }, fields_);
  }

 private:
  template <class Structure, class Integer>
  static void load_one(ByteSpan bytes, Structure& structure, Field<Structure, Integer> field) {
    if constexpr (kOrder == std::endian::big)
      structure.*field.member = load_be<Integer>(bytes, field.offset);
    else
      structure.*field.member = load_le<Integer>(bytes, field.offset);
  }
  template <class Structure, class Integer>
  static void store_one(MutableByteSpan bytes, const Structure& structure,
                        Field<Structure, Integer> field) {
    if constexpr (kOrder == std::endian::big)
      store_be<Integer>(bytes, field.offset, structure.*field.member);
    else
      store_le<Integer>(bytes, field.offset, structure.*field.member);
  }

  std::tuple<Fields...> fields_;
};

template <class... Fields>
constexpr auto big_endian_fields(Fields... fields) {
  return FieldTable<std::endian::big, Fields...>(fields...);
}
template <class... Fields>
constexpr auto little_endian_fields(Fields... fields) {
  return FieldTable<std::endian::little, Fields...>(fields...);
}

}  // namespace cairn
