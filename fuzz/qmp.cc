// What a client of QMP sends, and the text of an option: the stream of JSON, in pieces of several
// sizes, and the check of arguments against the table of types.
#include <cstdlib>

#include "base/error.h"
#include "base/json_stream.h"
#include "daemon/keyval.h"
#include "daemon/schema/schema.h"

namespace {

using namespace cairn;
using namespace cairn::daemon;

void check(const Value& request, Form form) {
  const Value* name = request.find("execute");
  if (name == nullptr || name->get_if<std::string>() == nullptr) return;
  const SchemaEntry* entry = Schema::get().find_command(*name->get_if<std::string>());
  const Value* arguments = request.find("arguments");
  if (entry == nullptr || arguments == nullptr) return;
  try {
    // What was accepted is accepted again.
    const Value checked = checked_value(entry->argument, *arguments, form);
    const Value again = checked_value(entry->argument, checked, form);
    if (again.compact() != checked.compact()) std::abort();
  } catch (const Error&) {
  }
}

// All that comes out of BYTES when PIECE of them are fed at a time.
std::string read(std::string_view bytes, size_t piece) {
  std::string said;
  JsonStream stream;
  const auto take = [&] {
    while (const auto item = stream.next()) {
      said += item->error.empty() ? item->value.compact() : item->error;
      check(item->value, Form::kJson);
    }
  };
  for (size_t at = 0; at < bytes.size(); at += piece) {
    stream.feed(bytes.substr(at, piece));
    take();
  }
  stream.finish();
  take();
  return said;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string whole = read(bytes, size + 1);
  if (read(bytes, 1) != whole || read(bytes, 7) != whole) std::abort();
  try {
    const Keyval line = parse_keyval(bytes, "driver");
    check(line.value, Form::kKeyval);
    checked_value("BlockdevOptions", line.value, Form::kKeyval);
  } catch (const Error&) {
  }
  return 0;
}
