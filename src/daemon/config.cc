#include "daemon/config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <iterator>
#include <set>
#include <utility>

#include "base/error.h"
#include "block/config_file.h"

namespace cairn::daemon {
namespace {

constexpr size_t kMostConfigBytes = size_t{4} << 20;

struct Group {
  std::string_view name;
  std::string_view id_key;  // what the section's ID is called; empty: it has none
  bool needs_id;
};
constexpr Group kGroups[] = {
    {"blockdev", "node-name", true}, {"chardev", "id", true},  {"export", "id", true},
    {"metrics", "", false},          {"monitor", "id", false}, {"nbd-server", "", false},
    {"object", "id", true},          {"state", "", false},
};

// Reads a regular file only: a pipe could keep the start waiting, a device has no end.
std::string content_of(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw Error::system(errno, "Could not open '" + path + "'");
  struct stat found {};
  std::string text;
  int failure = ::fstat(fd, &found) == 0 ? 0 : errno;
  const bool fits = failure == 0 && S_ISREG(found.st_mode) &&
                    static_cast<uint64_t>(found.st_size) <= kMostConfigBytes;
  if (fits) {
    text.resize(static_cast<size_t>(found.st_size));
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t got = ::read(fd, text.data() + done, text.size() - done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) failure = errno;
      if (got <= 0) break;
      done += static_cast<size_t>(got);
    }
    text.resize(done);
  }
  ::close(fd);
  if (failure != 0) throw Error::system(failure, "Could not read '" + path + "'");
  if (!fits)
    invalid("'" + path + "' is not a configuration file: a regular file of up to 4 MiB is");
  return text;
}

// Adds ",KEY=VALUE" with the commas of the value doubled.
void add_word(std::string& line, std::string_view key, std::string_view value) {
  if (!line.empty()) line += ',';
  line += key;
  line += '=';
  for (const char c : value) {
    line += c;
    if (c == ',') line += c;
  }
}

const Group& group_of(const ConfigSection& section) {
  const auto* const group =
      std::find_if(std::begin(kGroups), std::end(kGroups),
                   [&](const Group& one) { return one.name == section.group; });
  if (group == std::end(kGroups)) {
    std::string known;
    for (const Group& one : kGroups) known += (known.empty() ? "" : ", ") + std::string(one.name);
    invalid("There is no option group '" + section.group + "'; there are " + known);
  }
  return *group;
}

std::string argument_of(const ConfigSection& section) {
  const Group& group = group_of(section);
  if (group.id_key.empty() && !section.id.empty())
    invalid("A section of this group has no name: remove it");
  if (group.needs_id && section.id.empty())
    invalid("The name is missing: [" + section.group + " \"NAME\"]");
  std::string line;
  if (!section.id.empty()) add_word(line, group.id_key, section.id);
  for (const auto& [key, value] : section.values.items()) {
    if (key == group.id_key) invalid("The section's name is its '" + key + "': remove that line");
    if (key.find_first_of(",{") != std::string::npos) invalid("Invalid parameter '" + key + "'");
    add_word(line, key, value.scalar_text());
  }
  return line;
}

}  // namespace

std::vector<LineStep> read_config(const std::string& path) {
  std::vector<LineStep> steps;
  std::set<std::pair<std::string, std::string>> seen;
  for (const ConfigSection& section : parse_config(content_of(path), path)) {
    std::string where = path + ":" + std::to_string(section.line) + ": [" + section.group +
                        (section.id.empty() ? "" : " \"" + section.id + "\"") + "]";
    try {
      std::string argument = argument_of(section);
      if (!section.id.empty() && !seen.emplace(section.group, section.id).second)
        invalid("There is a section of this name already");
      steps.push_back({section.group, std::move(argument), std::move(where), false, section.id});
    } catch (Error& error) {
      throw error.context(where);
    }
  }
  return steps;
}

}  // namespace cairn::daemon
