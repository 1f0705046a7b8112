#include "cli/report.h"

#include "qemu/json_order.h"

namespace cairn::cli {

void print_report(const Session& session, const Value& members, std::string_view what) {
  // The fixed rank of QEMU's members would put the schema last.
  const std::string schema = "cairn/" + (what.empty() ? session.verb : std::string(what)) + "/1";
  print("{\n    \"schema\": \"" + schema + "\",\n" + members.pretty(qemu::json_order).substr(2) +
        "\n");
  finish_output();
}

Value array_of(const std::vector<std::string>& names) {
  Value array = Value::array();
  for (const std::string& name : names) array.push_back(name);
  return array;
}

Value object_of(const Options& options) {
  Value object = Value::object();
  for (const auto& [key, value] : options.items())
    object.set(key, options.string(key).value_or(""));
  return object;
}

}  // namespace cairn::cli
