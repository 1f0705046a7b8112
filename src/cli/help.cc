#include "cli/help.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/similar.h"
#include "block/driver.h"
#include "cli/verbs.h"
#include "platform/system.h"

namespace cairn::cli {
namespace {

constexpr size_t kColumn = 30;  // where the explanations begin

// A command line that works, for each verb.
constexpr std::pair<std::string_view, std::string_view> kExamples[] = {
    {"amend", "cairn amend -o lazy_refcounts=on disk.qcow2"},
    {"backup", "cairn backup disk.qcow2 backups"},
    {"bench", "cairn bench -c 1000 -d 16 disk.qcow2"},
    {"bitmap", "cairn bitmap --add disk.qcow2 since-monday"},
    {"check", "cairn check -r leaks disk.qcow2"},
    {"commit", "cairn commit overlay.qcow2"},
    {"compact", "cairn compact disk.qcow2"},
    {"compare", "cairn compare disk.raw disk.qcow2"},
    {"completion", "cairn completion bash"},
    {"convert", "cairn convert --verify disk.raw copy.qcow2"},
    {"create", "cairn create -b disk.qcow2 -F qcow2 new.qcow2"},
    {"ctl", "cairn ctl --socket qmp.sock jobs"},
    {"daemon", "cairn daemon --chardev stdio,id=c --monitor c"},
    {"dd", "cairn dd bs=1M count=1 if=disk.qcow2 of=first.raw"},
    {"formats", "cairn formats qcow2 vhdx"},
    {"hash", "cairn hash -a sha512 disk.qcow2"},
    {"info", "cairn info --backing-chain overlay.qcow2"},
    {"io", "cairn io -c 'write -P 0xab 0 64KiB' -c 'read -v 0 32' disk.qcow2"},
    {"map", "cairn map --output json disk.qcow2"},
    {"measure", "cairn measure -O qcow2 disk.raw"},
    {"mount", "cairn mount disk.qcow2 mounted.raw"},
    {"nbd", "cairn nbd -t -k /run/vm.sock disk.qcow2"},
    {"nvme", "cairn nvme list"},
    {"rebase", "cairn rebase -b '' overlay.qcow2"},
    {"resize", "cairn resize disk.qcow2 +1GiB"},
    {"restore", "cairn restore --verify backups restored.qcow2"},
    {"serve", "cairn serve -r disk.qcow2"},
    {"umount", "cairn umount mounted.raw"},
    {"snapshot", "cairn snapshot -c before-upgrade disk.qcow2"},
};

// What an option is about. Those that are in no list belong to the verb alone.
struct Subject {
  std::string_view heading;
  std::vector<std::string_view> names;
};
const std::vector<Subject>& subjects() {
  static const std::vector<Subject> list = {
      {"Opening images",
       {"a-format", "b-format", "backing-format", "cache", "cache-dir", "cache-size",
        "cache-trust-name", "disk", "force-share", "format", "image-opts", "key-file", "object",
        "source-cache", "source-format", "source-image-opts", "target-cache", "target-image-opts"}},
      {"NBD clients",
       {"allocation-depth", "bind", "bitmap", "connect", "description", "disconnect", "export-name",
        "handshake-limit", "list", "memory", "once", "persistent", "port", "selinux-label",
        "shared", "socket", "tls-authz", "tls-creds", "tls-hostname"}},
      {"Output", {"help", "output", "progress", "quiet", "verbose", "version"}},
      {"Images that you do not trust", {"budget", "untrusted"}},
  };
  return list;
}

size_t subject_of(const Flag& flag) {
  if (flag.id == kList) return 0;  // of things that the verb makes
  for (size_t i = 0; flag.long_name != nullptr && i < subjects().size(); ++i)
    for (const std::string_view name : subjects()[i].names)
      if (name == flag.long_name) return i + 1;
  return 0;
}

void print_entry(std::string left, std::string_view text) {
  left.insert(0, "  ");
  // A long name has a line of its own.
  if (left.size() + 2 > kColumn) {
    print(left + "\n");
    left.clear();
  }
  left.resize(kColumn, ' ');
  print(left + wrapped(text, help_width() - kColumn, kColumn) + "\n");
}

std::string names_of(const Flag& flag) {
  std::string names = flag.id < 256 ? std::string("-") + static_cast<char>(flag.id) : "   ";
  if (flag.long_name != nullptr)
    names += (flag.id < 256 ? ", --" : " --") + std::string(flag.long_name);
  if (flag.value_name != nullptr)
    names += (*flag.value_name == '[' ? "" : " ") + std::string(flag.value_name);
  return names;
}

std::string format_list(const Registry& registry) {
  std::string line;
  for (const Driver* driver : registry.all()) line += " " + std::string(driver->name());
  return line;
}

int print_qemu_help(const Session& session) {
  std::vector<qemu::HelpRow> rows;
  for (const Verb& verb : verbs())
    if (!verb.own) rows.push_back({std::string(verb.name), std::string(verb.synopsis)});
  const std::string version = version_text(session);
  print(qemu::help_text(version.substr(0, version.find('\n') + 1), rows,
                        format_list(session.context.registry())));
  finish_output();
  return 0;
}

int print_qemu_verb_help(const Session& session, const Verb& verb, const std::vector<Flag>& flags) {
  std::vector<qemu::HelpRow> options;
  for (const Flag& flag : flags) options.push_back({names_of(flag), flag.help});
  print(qemu::verb_help_text(session.program, {std::string(verb.name), std::string(verb.synopsis)},
                             verb.summary, options, format_list(session.context.registry())));
  finish_output();
  return 0;
}

void print_verb_line(std::string_view name, std::string_view summary) {
  std::string left = "  " + std::string(name);
  left.resize(13, ' ');
  print(left + wrapped(summary, help_width() - 13, 13) + "\n");
}

}  // namespace

size_t help_width() {
  const unsigned columns = platform::terminal_columns(STDOUT_FILENO).value_or(0);
  return columns == 0 ? 80 : std::clamp<size_t>(columns, 50, 120);
}

namespace {

size_t columns_of(std::string_view word) {
  // Bytes that continue a character take no column.
  return static_cast<size_t>(std::count_if(word.begin(), word.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// Where the first word of TEXT ends. "[-f FMT]" is one word, unless it is as long as a line.
size_t end_of_word(std::string_view text, size_t width) {
  const size_t end = std::min(text.find(' '), text.size());
  if (!text.starts_with('[')) return end;
  size_t depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    depth += text[i] == '[' ? 1 : 0;
    depth -= text[i] == ']' ? 1 : 0;
    if (depth != 0) continue;
    const size_t whole = std::min(text.find(' ', i), text.size());
    return columns_of(text.substr(0, whole)) <= width ? whole : end;
  }
  return end;
}

}  // namespace

std::string wrapped(std::string_view text, size_t width, size_t indent) {
  std::string out;
  size_t used = 0;
  while (!text.empty()) {
    const size_t end = end_of_word(text, width);
    const std::string_view word = text.substr(0, end);
    const size_t columns = columns_of(word);
    if (used != 0 && used + 1 + columns > width) {
      out += "\n" + std::string(indent, ' ');
      used = 0;
    } else if (used != 0) {
      out += ' ';
      ++used;
    }
    out += word;
    used += columns;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

int print_help(const Session& session) {
  if (!session.manners.tool.empty()) return print_qemu_help(session);
  print("cairn: disk images, every format, one tool\n\nUsage: cairn VERB [OPTIONS] …\n\n");
  for (const Verb& verb : verbs()) print_verb_line(verb.name, verb.summary);
  for (const Tool& tool : tools()) print_verb_line(tool.verb, tool.summary);
  print(
      "\n" +
      wrapped("`cairn VERB --help` lists the options of a verb, with an example. `cairn "
              "--version` prints the version.",
              help_width(), 0) +
      "\n\n" +
      wrapped("Sizes: 512, 64k, 1.5G, 20GiB (1024 × 1024 × 1024 bytes each), 20GB (1000 × 1000 × "
              "1000 bytes each).",
              help_width(), 0) +
      "\n\n" +
      wrapped("Supported formats:" + format_list(session.context.registry()), help_width() - 4, 4) +
      "\n");
  finish_output();
  return 0;
}

int print_verb_help(const Session& session, const Verb& verb, const std::vector<Flag>& flags) {
  if (!session.manners.tool.empty()) return print_qemu_verb_help(session, verb, flags);
  print(wrapped("cairn " + std::string(verb.name) + ": " + std::string(verb.summary), help_width(),
                0) +
        "\n\n" +
        wrapped("Usage: cairn " + std::string(verb.name) + " " + std::string(verb.synopsis),
                help_width() - 4, 4) +
        "\n");
  for (const auto& [name, line] : kExamples)
    if (name == verb.name) print("\nExample: " + std::string(line) + "\n");
  for (size_t subject = 0; subject <= subjects().size(); ++subject) {
    bool any = false;
    for (const Flag& flag : flags) {
      if (subject_of(flag) != subject) continue;
      if (!any)
        print(subject == 0 ? std::string("\nOptions:\n")
                           : "\n" + std::string(subjects()[subject - 1].heading) + ":\n");
      any = true;
      print_entry(names_of(flag), flag.help);
    }
  }
  print("\n" +
        wrapped("`cairn formats` lists the formats (FMT) with what each can do.", help_width(), 0) +
        "\n");
  finish_output();
  return 0;
}

std::string unknown_verb(const Session& session, const std::string& name) {
  const std::string message = "Command not found: " + name;
  if (!session.manners.explains) return message;
  std::vector<std::string> known = {"help"};
  for (const Verb& verb : verbs()) known.emplace_back(verb.name);
  for (const Tool& tool : tools()) known.emplace_back(tool.verb);
  return message + did_you_mean(name, known);
}

std::string unknown_format(const Session& session, const std::string& name) {
  const std::string message = "Unknown file format '" + name + "'";
  if (!session.manners.explains) return message;
  std::vector<std::string> known = {"vhd"};
  for (const Driver* driver : session.context.registry().all()) known.emplace_back(driver->name());
  return message + did_you_mean(name, known) + " (`cairn formats` lists the formats)";
}

}  // namespace cairn::cli
