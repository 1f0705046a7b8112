#include <algorithm>

#include "base/size.h"
#include "block/driver.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

Value bitmap_entry(const DirtyBitmap& bitmap) {
  Value entry = Value::object();
  entry.set("name", bitmap.name());
  entry.set("granularity", bitmap.granularity());
  entry.set("enabled", bitmap.enabled());
  entry.set("inconsistent", bitmap.inconsistent());
  // Nobody knows what an inconsistent one should hold.
  if (!bitmap.inconsistent()) entry.set("dirty-bytes", bitmap.dirty_bytes());
  return entry;
}

Task<Value> read_bitmaps(Session& session, OpenRequest request, std::string name) {
  NodePtr node = co_await open_node(session.context, std::move(request));
  Value bitmaps = Value::array();
  std::exception_ptr error;
  try {
    if (!node->supports_bitmaps() && node->bitmaps().empty())
      throw Error(ErrorKind::kUnsupported, "'" + name + "' has the format " +
                                               std::string(node->driver().name()) +
                                               ", which keeps no bitmaps");
    for (const DirtyBitmapPtr& bitmap : node->bitmaps().list())
      bitmaps.push_back(bitmap_entry(*bitmap));
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), error);
  co_return bitmaps;
}

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
  request.flags.no_backing = true;
  Value bitmaps = run(session, read_bitmaps(session, std::move(request), name));
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
