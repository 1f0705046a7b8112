#include "cli/io/shell.h"

#include <fmt/core.h>
#include <getopt.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/similar.h"
#include "base/size.h"
#include "block/driver.h"
#include "cli/io/io.h"
#include "cli/io/transcript.h"
#include "cli/report.h"
#include "cli/size_text.h"
#include "cli/system.h"
#include "cli/trace.h"

namespace cairn::cli::io {

// --- command lines ---

std::vector<std::string> split_line(std::string_view line) {
  std::vector<std::string> words;
  size_t at = 0;
  while (at < line.size()) {
    const size_t begin = line.find_first_not_of(' ', at);
    if (begin == std::string_view::npos) break;
    at = std::min(line.find(' ', begin), line.size());
    words.emplace_back(line.substr(begin, at - begin));
  }
  return words;
}

Words::Words(const std::vector<std::string>& line, const char* options) {
  std::vector<std::string> copy = line;
  std::vector<char*> argv;
  for (std::string& word : copy) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::fflush(stdout);
  optind = 0;
  opterr = 1;
  const int argc = static_cast<int>(line.size());
  for (int got = 0; (got = ::getopt(argc, argv.data(), options)) != -1;) {
    if (got == '?') throw WrongUsage{};
    given_.emplace_back(static_cast<char>(got), optarg != nullptr ? optarg : "");
  }
  for (int i = optind; i < argc; ++i) rest_.emplace_back(argv[static_cast<size_t>(i)]);
}

bool Words::has(char option) const { return times(option) != 0; }
size_t Words::times(char option) const {
  return static_cast<size_t>(std::count_if(given_.begin(), given_.end(),
                                           [&](const auto& one) { return one.first == option; }));
}
std::optional<std::string> Words::value(char option) const {
  std::optional<std::string> last;
  for (const auto& [given, text] : given_)
    if (given == option) last = text;
  return last;
}
void Words::expect(size_t least, size_t most) const {
  if (rest_.size() < least || rest_.size() > most) throw WrongUsage{};
}

uint64_t number(const Shell& shell, const std::string& text) {
  uint64_t value = 0;
  const SizeError error = parse_size(plain_size(shell.session, text), &value, INT64_MAX);
  if (error == SizeError::kSyntax)
    throw Failed{"Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- " +
                 text};
  if (error == SizeError::kRange) throw Failed{"Parsing error: argument too large -- " + text};
  return value;
}

uint8_t pattern_byte(const std::string& text) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 0);
  if (value < 0 || value > 255 || *end != 0) throw Failed{text + " is not a valid pattern byte"};
  return static_cast<uint8_t>(value);
}

const std::vector<Command>& commands() {
  static const std::vector<Command> table = [] {
    std::vector<Command> all;
    for (auto* part : {data_commands, async_commands, file_commands, other_commands})
      for (Command& command : part()) all.push_back(std::move(command));
    std::sort(all.begin(), all.end(),
              [](const Command& a, const Command& b) { return a.name < b.name; });
    return all;
  }();
  return table;
}

const Command* find_command(std::string_view name) {
  for (const Command& command : commands())
    if (command.name == name || (!command.alias.empty() && command.alias == name)) return &command;
  return nullptr;
}

void Shell::print_usage(const Command& command) const {
  std::string line(command.name);
  // A command whose arguments are given, but empty, shows it.
  if (!command.arguments.empty() || command.name == "map")
    line += " " + std::string(command.arguments);
  print(line + " -- " + std::string(command.summary) + "\n");
}

namespace {

void complain(std::string_view text) {
  std::fflush(stdout);
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

// For people: the command that was probably meant.
std::string guess(const Session& session, const std::string& name) {
  if (!session.manners.explains) return {};
  std::vector<std::string> known;
  for (const Command& command : commands()) known.emplace_back(command.name);
  return did_you_mean(name, known) + "; `help` lists the commands";
}

bool count_fits(const Command& command, const std::string& typed, int count) {
  if (count >= command.least && (command.most < 0 || count <= command.most)) return true;
  std::string expected;
  if (command.most < 0)
    expected = "at least " + std::to_string(command.least);
  else if (command.least == command.most)
    expected = std::to_string(command.least);
  else
    expected = fmt::format("between {} and {}", command.least, command.most);
  complain(
      fmt::format("bad argument count {} to {}, expected {} arguments", count, typed, expected));
  return false;
}

}  // namespace

Task<bool> Shell::run_line(std::string line) {
  std::vector<std::string> words = split_line(line);
  if (words.empty()) co_return true;
  const Command* command = find_command(words[0]);
  if (command == nullptr) {
    complain("command \"" + words[0] + "\" not found" + guess(session, words[0]));
    co_return false;
  }
  const std::string typed = std::exchange(words[0], std::string(command->name));
  if (command->needs_file && !node) {
    complain("no file open, try 'help open'");
    co_return false;
  }
  if (!count_fits(*command, typed, static_cast<int>(words.size()) - 1)) co_return false;
  if (command->writes && read_only) {
    session.error("Block node is read-only");
    co_return false;
  }
  bool good = false;
  try {
    good = co_await command->run(*this, std::move(words));
  } catch (const WrongUsage&) {
    print_usage(*command);
  } catch (const Failed& failed) {
    if (!failed.line.empty() && !is_over()) print(failed.line + "\n");
  } catch (const Error& error) {
    if (!is_over()) session.error(error);
  }
  quit = quit || is_over();
  co_return good && !is_over();
}

// --- the file ---

Task<void> Shell::drain() { co_await pending.join(); }

Task<bool> Shell::open_file(OpenHow how) {
  const std::string name = how.request.filename;
  std::optional<Error> problem;
  try {
    if (how.native_aio && !how.request.flags.cache.direct)
      throw Error(ErrorKind::kInvalid,
                  "aio=native was specified, but it requires cache.direct=on, which was not "
                  "specified.");
    if (how.copy_on_read && !how.request.flags.writable)
      throw Error(ErrorKind::kInvalid, "Can't use copy-on-read on read-only device");
    OpenRequest request = how.request;
    if (how.snapshot)
      node = co_await operation::open_image(session.context, std::move(request), true);
    else
      node = co_await open_node(session.context, std::move(request));
  } catch (const Error& error) {
    problem = error;
  }
  if (!problem && how.copy_on_read) {
    OpenRequest above;
    above.options.set("driver", "copy-on-read");
    above.file = node;
    above.flags = how.request.flags;
    try {
      node = co_await open_node(session.context, std::move(above));
    } catch (const Error& error) {
      problem = error;
    }
    if (problem) {
      co_await node->close();
      node.reset();
    }
  }
  if (problem) {
    // What follows says it in its own words.
    const std::string told = "Could not open '" + name + "': ";
    std::string text = problem->message();
    if (text.starts_with(told)) text.erase(0, told.size());
    Error whole(problem->kind(), how.bare_errors ? text
                                 : name.empty()  ? "can't open: " + text
                                                 : "can't open device " + name + ": " + text);
    for (const Hint& line : problem->hints()) whole.hint(line);
    session.error(whole);
    co_return false;
  }
  read_only = !how.request.flags.writable;
  opened = std::move(how);
  co_return true;
}

Task<void> Shell::close_file() {
  co_await drain();
  if (!node) co_return;
  const NodePtr closing = std::move(node);
  node.reset();
  co_await closing->close();
}

bool apply_cache(Shell& shell, OpenHow& how, const std::string& name) {
  const auto mode = CacheMode::parse(name);
  if (!mode) {
    shell.session.error("Invalid cache option: " + name);
    return false;
  }
  how.request.flags.cache = *mode;
  return true;
}

bool apply_discard(Shell& shell, OpenHow& how, const std::string& name) {
  if (name != "ignore" && name != "off" && name != "unmap" && name != "on") {
    shell.session.error("Invalid discard option: " + name);
    return false;
  }
  how.request.flags.discard_unmap = name == "unmap" || name == "on";
  return true;
}

bool apply_aio(Shell& shell, OpenHow& how, const std::string& name) {
  how.native_aio = name == "native";
  if (name == "threads" || name == "native" || name == "io_uring") return true;
  shell.session.error("Invalid aio option: " + name);
  return false;
}

// --- the tool ---

namespace {

enum LongOnly : int { kObjectOption = 256, kImageOptsOption, kUntrustedOption };

const option kLongOptions[] = {
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {"cmd", required_argument, nullptr, 'c'},
    {"format", required_argument, nullptr, 'f'},
    {"read-only", no_argument, nullptr, 'r'},
    {"snapshot", no_argument, nullptr, 's'},
    {"nocache", no_argument, nullptr, 'n'},
    {"copy-on-read", no_argument, nullptr, 'C'},
    {"misalign", no_argument, nullptr, 'm'},
    {"native-aio", no_argument, nullptr, 'k'},
    {"aio", required_argument, nullptr, 'i'},
    {"discard", required_argument, nullptr, 'd'},
    {"cache", required_argument, nullptr, 't'},
    {"trace", required_argument, nullptr, 'T'},
    {"force-share", no_argument, nullptr, 'U'},
    {"object", required_argument, nullptr, kObjectOption},
    {"image-opts", no_argument, nullptr, kImageOptsOption},
    {"untrusted", no_argument, nullptr, kUntrustedOption},
    {nullptr, 0, nullptr, 0},
};

void print_tool_help(const Session& session) {
  print("Usage: " + session.program +
        " [OPTIONS]... [-c STRING]... [file]\n"
        "Reads and writes bytes of a disk, command by command.\n\n"
        "  --object OBJECTDEF   define an object, such as a secret\n"
        "  --image-opts         the file is a list of options\n"
        "  -c, --cmd STRING     run this command; may be given several times\n"
        "  -f, --format FMT     format of the image (default: detected)\n"
        "  -r, --read-only      open read-only\n"
        "  -s, --snapshot       changes go to a temporary overlay\n"
        "  -n, --nocache        as -t none\n"
        "  -C, --copy-on-read   what is read from below is stored in the image\n"
        "  -m, --misalign       buffers do not begin where direct I/O wants them to\n"
        "  -k, --native-aio     as -i native\n"
        "  -i, --aio=MODE       threads, native or io_uring; accepted, see CAIRN_ENGINE\n"
        "  -t, --cache=MODE     none, writeback, writethrough (default), directsync or unsafe\n"
        "  -d, --discard=MODE   unmap (default) or ignore\n"
        "  -T, --trace PATTERN  accepted for compatibility\n"
        "  -U, --force-share    open although somebody else writes it\n"
        "      --untrusted      open nothing that the image refers to\n"
        "  -h, --help           print this help\n"
        "  -V, --version        print the version\n\n"
        "The command `help` lists the commands.\n");
  finish_output();
}

struct Invocation {
  std::vector<std::string> lines;  // of -c
  std::optional<OpenHow> file;
};

Task<bool> run_recorded(Shell& shell, std::string line) {
  Transcript* transcript = Transcript::current();
  if (transcript != nullptr) transcript->begin(line);
  const bool good = co_await shell.run_line(std::move(line));
  if (transcript != nullptr) transcript->end(good);
  co_return good;
}

std::string prompt_of(const Session& session) {
  if (session.json) return {};
  return session.program + (session.manners.tool.empty() ? " io> " : "> ");
}

Task<int> serve(Shell& shell, Invocation invocation) {
  std::optional<Transcript> transcript;
  if (shell.session.json) transcript.emplace();
  bool good = true;
  if (invocation.file) {
    const bool opened = co_await shell.open_file(std::move(*invocation.file));
    if (!opened) co_return 1;
  }
  if (!invocation.lines.empty()) {
    for (const std::string& line : invocation.lines) {
      if (shell.quit) break;
      const bool fine = co_await run_recorded(shell, line);
      good = good && fine;
    }
  } else {
    LineSource source(prompt_of(shell.session));
    while (!shell.quit) {
      const std::optional<std::string> line = co_await run_blocking([&] { return source.next(); });
      if (!line) break;
      const bool fine = co_await run_recorded(shell, *line);
      good = good && fine;
      std::fflush(stdout);
    }
  }
  try {
    co_await shell.close_file();
  } catch (const Error&) {
    // What a command has reported is not said again in the end, as qemu-io does not.
    if (good || shell.session.context.profile.explanations) throw;
  }
  if (transcript) {
    Value report = Value::object();
    report.set("commands", transcript->commands());
    print_report(shell.session, report);
  }
  co_return shell.went_well(good) ? 0 : 1;
}

// What the words on the command line say.
struct CommandLine {
  OpenHow how;
  Invocation invocation;
  std::vector<std::string> objects;
  bool image_opts = false;
};

// Takes an option, whose value is in optarg; gives the exit code when the program ends with it.
std::optional<int> take_option(Session& session, Shell& shell, CommandLine& line, int option) {
  switch (option) {
    case 'h':
      print_tool_help(session);
      return 0;
    case 'V':
      print(version_text(session));
      finish_output();
      return 0;
    case 'c':
      line.invocation.lines.emplace_back(optarg);
      break;
    case 'f':
      line.how.request.format = optarg;
      break;
    case 'r':
      line.how.request.flags.writable = false;
      break;
    case 's':
      line.how.snapshot = true;
      break;
    case 'C':
      line.how.copy_on_read = true;
      break;
    case 'n':
      apply_cache(shell, line.how, "none");
      break;
    case 'm':
      shell.misalign = 16;
      break;
    case 'k':
      apply_aio(shell, line.how, "native");
      break;
    case 'i':
      if (!apply_aio(shell, line.how, optarg)) return 1;
      break;
    case 'd':
      if (!apply_discard(shell, line.how, optarg)) return 1;
      break;
    case 't':
      if (!apply_cache(shell, line.how, optarg)) return 1;
      break;
    case 'T':
      if (const auto code = take_trace(session, optarg)) return *code;
      break;
    case 'U':
      line.how.request.flags.force_share = true;
      break;
    case kObjectOption:
      line.objects.emplace_back(optarg);
      break;
    case kImageOptsOption:
      line.image_opts = true;
      shell.image_opts = true;
      break;
    case kUntrustedOption:
      session.untrusted = true;
      break;
    default:
      print_tool_help(session);
      return 1;
  }
  return std::nullopt;
}

}  // namespace
}  // namespace cairn::cli::io

namespace cairn::cli {

int run_io(Session& session, int argc, char** argv) {
  using namespace io;
  // Who waits at a prompt is not asked for an orderly end: an interrupt ends the shell.
  let_signals_end();
  Shell shell(session);
  CommandLine line;
  OpenHow& how = line.how;
  how.request.flags.writable = true;
  how.request.flags.discard_unmap = true;
  how.request.flags.cache.write_through = true;
  optind = 0;
  opterr = 1;
  int got = 0;
  while ((got = ::getopt_long(argc, argv, "hVc:d:f:rsCnkmi:t:T:U", kLongOptions, nullptr)) != -1) {
    if (const auto code = take_option(session, shell, line, got)) return *code;
  }
  if (argc - optind > 1) {
    if (session.manners.explains) throw UsageError{"Expecting one image at most"};
    print_tool_help(session);
    return 1;
  }
  if (!how.request.format.empty() && line.image_opts)
    fail(session, "--image-opts and -f are mutually exclusive");
  if (add_objects(session, line.objects)) return 0;
  if (session.untrusted) how.request.flags.references.mode = ReferencePolicy::Mode::kDeny;
  if (optind < argc) {
    if (line.image_opts) {
      how.request.options = image_options(session, argv[optind], "");
      how.request.image_opts = true;
    } else {
      how.request.filename = argv[optind];
    }
    line.invocation.file = std::move(how);
  }
  return run(session, serve(shell, std::move(line.invocation)));
}

}  // namespace cairn::cli
