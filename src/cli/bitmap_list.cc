#include <algorithm>

#include "base/size.h"
#include "cli/report.h"
#include "cli/verbs.h"
#include "operation/bitmap.h"

namespace cairn::cli {
namespace {

// A name is the image's: what would steer a terminal is not printed as it is.
std::string shown(const std::string& name) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 32 && byte != 127)
      text += c;
    else
      text += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return text;
}

std::string column(std::string text, size_t width) {
  if (text.size() < width) text.resize(width, ' ');
  return text + "  ";
}

void print_bitmaps(const Value::Array& bitmaps) {
  size_t width = 4;
  for (const Value& bitmap : bitmaps) {
    const size_t length = shown(*bitmap.find("name")->get_if<std::string>()).size();
    width = std::max(width, length);
  }
  print(column("NAME", width) + column("STATE", 12) + column("GRANULARITY", 11) + "DIRTY\n");
  for (const Value& bitmap : bitmaps) {
    const auto on = [&](const char* key) { return *bitmap.find(key)->get_if<bool>(); };
    const auto size = [&](const char* key) {
      return human_size(*bitmap.find(key)->get_if<uint64_t>());
    };
    const bool lost = on("inconsistent");
    print(column(shown(*bitmap.find("name")->get_if<std::string>()), width) +
          column(lost            ? "inconsistent"
                 : on("enabled") ? "enabled"
                                 : "disabled",
                 12) +
          column(size("granularity"), 11) + (lost ? "?" : size("dirty-bytes")) + "\n");
  }
}

}  // namespace

int list_bitmaps(Session& session, Arguments& arguments) {
  if (arguments.words().size() != 1) throw UsageError{"--list takes one image and no bitmap"};
  for (const int id : {kAdd, kRemove, kClear, kEnable, kDisable, kMerge})
    if (arguments.has(id)) throw UsageError{"--list changes nothing: it goes with no other action"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  const std::string& name = arguments.words()[0];
  OpenRequest request = image_request(session, arguments, name, arguments.value('f'));
  Value bitmaps = run(session, operation::read_bitmaps(session.context, std::move(request), name));
  if (session.json) {
    Value result = Value::object();
    result.set("filename", name);
    result.set("actions", array_of({"list"}));
    result.set("bitmaps", std::move(bitmaps));
    print_report(session, result);
  } else if (!bitmaps.get_if<Value::Array>()->empty()) {
    print_bitmaps(*bitmaps.get_if<Value::Array>());
  }
  return 0;
}

}  // namespace cairn::cli
