#include "cli/snapshot_table.h"

#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <cstdio>

#include "base/size.h"
#include "cli/escape.h"
#include "cli/session.h"
#include "platform/system.h"
#include "qemu/json_order.h"

namespace cairn::cli {

void print_snapshots(const Value& list, const std::string& indent) {
  print(indent + "Snapshot list:\n" + indent +
        "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n");
  for (const Value& snapshot : *list.get_if<Value::Array>()) {
    const time_t date = static_cast<time_t>(number_of(snapshot, "date-sec"));
    struct tm local = {};
    platform::to_local(date, &local);
    char when[32];
    std::strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
    const uint64_t seconds = number_of(snapshot, "vm-clock-sec");
    char clock[48];
    std::snprintf(clock, sizeof clock, "%04llu:%02llu:%02llu.%03llu",
                  static_cast<unsigned long long>(seconds / 3600),
                  static_cast<unsigned long long>(seconds / 60 % 60),
                  static_cast<unsigned long long>(seconds % 60),
                  static_cast<unsigned long long>(number_of(snapshot, "vm-clock-nsec") / 1000000));
    const std::string icount =
        snapshot.find("icount") != nullptr ? text_of(snapshot, "icount") : "--";
    const std::string id = shown(text_of(snapshot, "id"));
    const std::string name = shown(text_of(snapshot, "name"));
    char row[1024];
    std::snprintf(row, sizeof row, "%-7s %-16s %8s %19s %15s %10s\n", id.c_str(), name.c_str(),
                  human_size(number_of(snapshot, "vm-state-size")).c_str(), when, clock,
                  icount.c_str());
    print(indent + row);
  }
}

std::string tree_text(const Value& value, size_t indent) {
  std::string text;
  const std::string blanks(indent, ' ');
  const auto entry = [&](const std::string& label, const Value& member) {
    if (member.is_object() || member.is_array()) {
      text += blanks + label + ":\n" + tree_text(member, indent + 4);
    } else {
      text += blanks + shown(label) + ": " + shown(member.scalar_text()) + "\n";
    }
  };
  if (const auto* object = value.get_if<Value::Object>()) {
    for (const Value::Member* member : Value::ranked(*object, qemu::json_order)) {
      std::string label = member->first;
      std::replace(label.begin(), label.end(), '-', ' ');
      entry(label, member->second);
    }
  } else if (const auto* items = value.get_if<Value::Array>()) {
    for (size_t i = 0; i < items->size(); ++i) entry(fmt::format("[{}]", i), (*items)[i]);
  }
  return text;
}

}  // namespace cairn::cli
