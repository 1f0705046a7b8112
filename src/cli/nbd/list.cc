#include "cli/nbd/list.h"

#include <fmt/core.h>

#include <cstdio>

#include "cli/report.h"

namespace cairn::cli {
namespace {

using namespace cairn::nbd;

using operation::ExportList;
using operation::ListedExport;

void print_export(const ListedExport& item, bool extended) {
  print(" export: '" + printable(item.name, kMaxString) + "'\n");
  if (!item.description.empty())
    print("  description: " + printable(item.description, kMaxString) + "\n");
  if (item.info) {
    print(fmt::format("  size:  {}\n", item.info->size));
    char flags[32];
    std::snprintf(flags, sizeof flags, "  flags: 0x%x (", item.info->flags);
    std::string line = flags;
    for (const std::string_view word : flag_words(item.info->flags))
      line += " " + std::string(word);
    print(line + " )\n");
  }
  if (item.sizes) {
    print(fmt::format("  min block: {}\n", item.sizes->minimum));
    print(fmt::format("  opt block: {}\n", item.sizes->preferred));
    print(fmt::format("  max block: {}\n", item.sizes->maximum));
  }
  print(std::string("  transaction size: ") + (extended ? "64-bit" : "32-bit") + "\n");
  if (item.contexts.empty()) return;
  print(fmt::format("  available meta contexts: {}\n", item.contexts.size()));
  for (const std::string& name : item.contexts) print("   " + printable(name, kMaxString) + "\n");
}

Value described(const ListedExport& item, bool extended) {
  Value out = Value::object();
  out.set("name", printable(item.name, kMaxString));
  if (!item.description.empty()) out.set("description", printable(item.description, kMaxString));
  if (item.info) {
    out.set("size", item.info->size);
    Value flags = Value::array();
    for (const std::string_view word : flag_words(item.info->flags)) flags.push_back(word);
    out.set("flags", std::move(flags));
  }
  if (item.sizes) {
    out.set("min-block", uint64_t{item.sizes->minimum});
    out.set("opt-block", uint64_t{item.sizes->preferred});
    out.set("max-block", uint64_t{item.sizes->maximum});
  }
  out.set("extended-headers", extended);
  Value contexts = Value::array();
  for (const std::string& name : item.contexts) contexts.push_back(printable(name, kMaxString));
  out.set("contexts", std::move(contexts));
  return out;
}

void report(const Session& session, const ExportList& listing) {
  Value exports = Value::array();
  for (const ListedExport& item : listing.exports)
    exports.push_back(described(item, listing.extended));
  Value out = Value::object();
  out.set("exports", std::move(exports));
  print_report(session, out);
}

}  // namespace

int list_exports(Session& session, const SocketAddress& address,
                 std::shared_ptr<const TlsCredentials> tls, const std::string& hostname) {
  const ExportList listing =
      run(session, operation::list_exports(address, std::move(tls), hostname));
  if (session.json) {
    report(session, listing);
    return 0;
  }
  print(fmt::format("exports available: {}\n", listing.exports.size()));
  for (const ListedExport& item : listing.exports) print_export(item, listing.extended);
  return 0;
}

}  // namespace cairn::cli
