#include <algorithm>

#include "block/capabilities/capabilities.h"
#include "block/driver.h"
#include "cli/help.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

// Images that can be written must be able to get a backing file, not only to name the one that
// another program gave them.
bool has_backing(const Driver& driver) {
  return driver.abilities().read_only ? driver.offers<BackingName>() : driver.offers<BackingLink>();
}

// What a driver can do, in the order of the table. Reading is what all can.
struct Ability {
  std::string_view name;
  bool (*has)(const Driver& driver);
};
constexpr Ability kAbilities[] = {
    {"write", [](const Driver& d) { return !d.abilities().read_only; }},
    {"create", [](const Driver& d) { return d.abilities().create; }},
    {"resize", [](const Driver& d) { return d.abilities().resize; }},
    {"backing", has_backing},
    {"snapshots", [](const Driver& d) { return d.offers<SnapshotStore>(); }},
    {"compress", [](const Driver& d) { return d.offers<CompressedWriter>(); }},
    {"check", [](const Driver& d) { return d.offers<Checkable>(); }},
    {"repair", [](const Driver& d) { return d.abilities().repair; }},
    {"amend", [](const Driver& d) { return d.offers<Amendable>(); }},
};

std::string_view kind_of(const Driver& driver) {
  switch (driver.kind()) {
    case DriverKind::kProtocol:
      return "protocol";
    case DriverKind::kFormat:
      return "format";
    case DriverKind::kFilter:
      return "filter";
  }
  return {};
}

constexpr size_t kNameWidth = 18;

std::string padded(std::string_view text, size_t width) {
  std::string out(text);
  if (out.size() < width) out.resize(width, ' ');
  return out;
}

Value described(const Driver& driver) {
  Value out = Value::object();
  out.set("name", driver.name());
  out.set("kind", kind_of(driver));
  out.set("title", driver.title());
  Value abilities = Value::object();
  abilities.set("read", true);
  for (const Ability& ability : kAbilities) abilities.set(ability.name, ability.has(driver));
  out.set("abilities", std::move(abilities));
  Value::Array endings;
  for (const std::string_view ending : driver.traits().endings) endings.emplace_back(ending);
  out.set("endings", std::move(endings));
  Value::Array prefixes;
  for (const std::string_view prefix : driver.prefixes()) prefixes.emplace_back(prefix);
  out.set("prefixes", std::move(prefixes));
  return out;
}

void print_table(const std::vector<const Driver*>& drivers, std::string_view kind,
                 std::string_view heading) {
  bool any = false;
  for (const Driver* driver : drivers) {
    if (kind_of(*driver) != kind) continue;
    if (!any) {
      std::string line = padded(heading, kNameWidth) + "read ";
      for (const Ability& ability : kAbilities) line += std::string(ability.name) + " ";
      print(line + "\n");
    }
    any = true;
    std::string line = padded(driver->name(), kNameWidth) + "yes  ";
    for (const Ability& ability : kAbilities)
      line += padded(ability.has(*driver) ? "yes" : "-", ability.name.size() + 1);
    print(line + " " + std::string(driver->title()) + "\n");
  }
  if (any) print("\n");
}

int run_formats(Session& session, Arguments& arguments) {
  std::vector<const Driver*> drivers = session.context.registry().all();
  if (const auto& words = arguments.words(); !words.empty()) {
    drivers.clear();
    for (const std::string& word : words) {
      const Driver* driver = session.context.registry().find(word);
      if (driver == nullptr) fail(session, unknown_format(session, word));
      drivers.push_back(driver);
    }
  }
  if (session.json) {
    Value formats = Value::array();
    for (const Driver* driver : drivers) formats.push_back(described(*driver));
    Value out = Value::object();
    out.set("formats", std::move(formats));
    print_report(session, out);
    return 0;
  }
  print_table(drivers, "format", "format");
  print_table(drivers, "protocol", "protocol");
  print_table(drivers, "filter", "filter");
  return 0;
}

}  // namespace

Verb formats_verb() {
  return {.name = "formats",
          .summary = "lists the formats and protocols and their features",
          .synopsis = "[--output=FMT] [NAME…]",
          .flags = {kOutputFlag},
          .run = run_formats,
          .own = true};
}

}  // namespace cairn::cli
