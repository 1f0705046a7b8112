#include "cli/trace.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace cairn::cli {
namespace {

void warn_of_event(const Session& session, const std::string& pattern) {
  if (pattern.empty() || pattern.find('*') != std::string::npos) return;
  const std::string name = pattern.substr(pattern.front() == '-' ? 1 : 0);
  session.warning("trace event '" + name + "' does not exist");
}

}  // namespace

std::optional<int> take_trace(const Session& session, const std::string& definition) {
  const Options options = Options::parse_list(definition, "enable");
  const std::string enable = options.string("enable").value_or("");
  const std::string events = options.string("events").value_or("");
  options.string("file");
  for (const std::string& unknown : options.unused())
    throw Error(ErrorKind::kInvalid, "Invalid parameter '" + unknown + "'");
  if (enable == "help" || enable == "?") return 0;
  warn_of_event(session, enable);
  if (events.empty()) return std::nullopt;
  std::ifstream file(events);
  if (!file) {
    std::fprintf(stderr, "%s:%s: %s\n", session.program.c_str(), events.c_str(),
                 std::strerror(errno));
    return 1;
  }
  for (std::string line; std::getline(file, line);)
    if (!line.starts_with("#")) warn_of_event(session, line);
  return std::nullopt;
}

}  // namespace cairn::cli
