#include "cli/help.h"

#include <algorithm>

#include "cli/io/shell.h"

namespace cairn::cli::io {
namespace {

struct Group {
  std::string_view heading;
  std::vector<Command> (*commands)();
};
constexpr Group kGroups[] = {
    {"Data", data_commands},
    {"Data, without waiting", async_commands},
    {"Image", file_commands},
    {"Shell, breakpoints and zones", other_commands},
};

// Of the commands with arguments whose help has none.
constexpr std::pair<std::string_view, std::string_view> kCommandExamples[] = {
    {"aio_read", "aio_read 0 64KiB"},   {"aio_write", "aio_write -P 1 0 64KiB"},
    {"alloc", "alloc 0 1MiB"},          {"break", "break write_aio first"},
    {"discard", "discard 1MiB 64KiB"},  {"help", "help read"},
    {"readv", "readv -P 0 0 4k 8k"},    {"remove_break", "remove_break first"},
    {"resume", "resume first"},         {"sleep", "sleep 100"},
    {"truncate", "truncate 2GiB"},      {"wait_break", "wait_break first"},
    {"writev", "writev -P 1 0 4k 8k"},  {"zone_append", "zone_append 0 64k"},
    {"zone_close", "zone_close 0 64k"}, {"zone_finish", "zone_finish 0 64k"},
    {"zone_open", "zone_open 0 64k"},   {"zone_report", "zone_report 0 1"},
    {"zone_reset", "zone_reset 0 64k"},
};

constexpr size_t kCommandColumn = 20;

void print_column(std::string left, std::string_view text, size_t column) {
  left.resize(std::max(left.size() + 1, column), ' ');
  print(left + wrapped(text, help_width() - column, column) + "\n");
}

// What `help NAME` says under QEMU's name, taken apart.
struct Explained {
  std::string text, example;
  std::vector<std::pair<std::string, std::string>> options;
};

Explained explain(const Command& command) {
  Explained result;
  result.example = command.name;
  for (const auto& [name, line] : kCommandExamples)
    if (name == command.name) result.example = line;
  std::string_view rest = command.help;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.starts_with(' ')) line.remove_prefix(1);
    const size_t begin = line.find('\'');
    const size_t dashes = line.find(", -- ");
    if (line.starts_with("For example '"))
      result.example = line.substr(begin + 1, line.find('\'', begin + 1) - begin - 1);
    else if (line.starts_with('-') && dashes != std::string_view::npos)
      result.options.emplace_back(line.substr(0, dashes), line.substr(dashes + 5));
    else if (!line.empty())
      result.text += (result.text.empty() ? "" : " ") + std::string(line);
  }
  return result;
}

}  // namespace

void print_own_help() {
  for (const Group& group : kGroups) {
    print(std::string(group.heading) + ":\n");
    for (const Command& command : group.commands()) {
      std::string left = "  " + std::string(command.name);
      if (!command.alias.empty()) left += ", " + std::string(command.alias);
      print_column(std::move(left), command.summary, kCommandColumn);
    }
    print("\n");
  }
  print(wrapped("`help COMMAND` explains one, with an example. Sizes: 512, 64k, 1.5G, 20GiB, 20GB.",
                help_width(), 0) +
        "\n");
}

void print_own_help(const Command& command) {
  const Explained explained = explain(command);
  const std::string name(command.name);
  std::string arguments(command.arguments);
  if (arguments.empty() && command.least != 0) arguments = "number";
  print(wrapped(name + ": " + std::string(command.summary), help_width(), 0) +
        "\n\nUsage: " + wrapped(name + " " + arguments, help_width() - 7, 7) + "\n");
  if (!command.alias.empty()) print("Short name: " + std::string(command.alias) + "\n");
  if (!explained.text.empty()) print("\n" + wrapped(explained.text, help_width(), 0) + "\n");
  print("\nExample: " + explained.example + "\n");
  if (explained.options.empty()) return;
  print("\nOptions:\n");
  for (const auto& [option, text] : explained.options) print_column("  " + option, text, 6);
}

}  // namespace cairn::cli::io
