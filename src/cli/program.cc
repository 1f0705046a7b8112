#include <algorithm>
#include <cstdio>
#include <cstring>
#include <thread>

#include "base/unfinished.h"
#include "cli/cache_dir.h"
#include "cli/cli.h"
#include "cli/configuration.h"
#include "cli/environment.h"
#include "cli/escape.h"
#include "cli/help.h"
#include "cli/key_budget.h"
#include "cli/key_file.h"
#include "cli/passwords.h"
#include "cli/pipes.h"
#include "cli/progress.h"
#include "cli/prompt.h"
#include "cli/sandbox.h"
#include "cli/session.h"
#include "cli/signals.h"
#include "cli/system.h"
#include "cli/trace.h"
#include "cli/verbs.h"
#include "cli/waiting.h"
#include "drivers.h"
#include "qemu/profile.h"

namespace cairn {
namespace {

using namespace cli;

int usage(const Session& session, const UsageError& error, int code) {
  session.error(error.message);
  const std::string program = !session.manners.tool.empty() ? std::string(session.manners.tool)
                              : session.verb.empty()        ? "cairn"
                                                            : "cairn " + session.verb;
  if (error.hint) std::fprintf(stderr, "Try '%s --help' for more information\n", program.c_str());
  return code;
}

// The command line is shown in lists of processes: secrets in it are readable no longer than it
// took to get here.
void hide_secrets(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    for (const auto& [offset, length] : passwords_in(word))
      std::memset(argv[i] + offset, 'x', length);
    const bool object =
        word.starts_with("--object=") || (i > 1 && std::string_view(argv[i - 1]) == "--object");
    const size_t data = word.find("data");
    if (!object || word.find("secret") == std::string_view::npos || data == std::string_view::npos)
      continue;
    std::memset(argv[i] + data + 4, 'x', word.size() - data - 4);
  }
}

// The image that VERB changes where it is; empty: none, or it has no plain name.
std::string changed_in_place(const Verb& verb, const Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.empty() || arguments.has(kImageOpts) || arguments.has(kTargetImageOpts)) return {};
  const auto is = [&](std::string_view name) { return verb.name == name; };
  if (is("resize") || is("commit") || is("rebase") || is("amend") ||
      (is("bitmap") && !arguments.has(kList)))
    return words.front();
  if (is("check")) return arguments.has('r') ? words.front() : std::string();
  if (is("snapshot")) return arguments.has('l') ? std::string() : words.back();
  return is("convert") && arguments.has('n') ? words.back() : std::string();
}

// That of the error, or what a shell reports of a program that a signal ended.
int code_of_failure(const Verb& verb) {
  return interrupted_by() != 0 ? 128 + interrupted_by() : verb.failure;
}

void limit_rate(Context& context, uint64_t bytes) {
  context.read_limit = std::make_unique<RateLimit>(bytes);
  context.write_limit = std::make_unique<RateLimit>(bytes);
}

// The verb itself; gives the exit code of whatever became of it.
int run_checked(Session& session, const Verb& verb, Arguments& arguments) {
  std::optional<Unfinished> unfinished;
  const std::string changed = changed_in_place(verb, arguments);
  if (!changed.empty()) unfinished.emplace(changed, Unfinished::Fate::kIncomplete);
  try {
    session.json = session.manners.own_words && json_output(session, arguments);
    if (const auto rate = arguments.value(kLimitRate))
      limit_rate(session.context, size_argument(session, *rate, "rate limit", 1));
    const int code = verb.run(session, arguments);
    finish_output();
    if (verb.name == "convert" || verb.name == "dd") warn_of_unused_key(session);
    return code == verb.failure ? code_of_failure(verb) : code;
  } catch (const UsageError& error) {
    return usage(session, error, verb.usage_failure);
  } catch (const Exit& exit) {
    return exit.code;
  } catch (Error& error) {
    // What was not yet open is as it was.
    const bool opened = !error.message().starts_with("Could not open '");
    if (error.kind() == ErrorKind::kCancelled && opened && !changed.empty() &&
        session.manners.explains)
      error.hint("'" + changed + "' is incomplete: the work was not finished.");
    session.error(error);
    return error.kind() == ErrorKind::kCancelled ? code_of_failure(verb) : verb.failure;
  } catch (const std::bad_alloc&) {
    session.error("out of memory");
    return verb.failure;
  }
}

int run_verb(Session& session, const Verb& verb, int argc, char** argv) {
  const std::vector<Flag> flags = flags_of(verb, session.manners.own_words);
  session.verb = verb.name;
  std::vector<char*> words(argv, argv + argc);
  try {
    if (session.manners.own_words && knows(flags, 'p'))
      session.progress_fd = take_json_progress(words);
    argc = static_cast<int>(words.size());
    for (const char* word : words) remember_passwords(word);
    words.push_back(nullptr);
    argv = words.data();
    const char* last = argc > 1 ? argv[argc - 1] : "";
    const bool literal =
        verb.size_last && last[0] == '-' && std::strchr("0123456789.", last[1]) != nullptr;
    Arguments arguments =
        Arguments::parse(flags, literal ? argc - 1 : argc, argv,
                         session.manners.whole_options ? LongNames::kWhole : LongNames::kShortened);
    if (literal) arguments.add_word(last);
    // What everybody but QEMU calls it.
    if (session.manners.own_words) arguments.translate(flags, "FMT", "vhd", "vpc");
    hide_secrets(argc, argv);
    if (arguments.has('h')) return print_verb_help(session, verb, flags);
    // Asked for anywhere, help is all that happens.
    for (const std::string& definition : arguments.values(kObject)) {
      if (!print_object_help(session, definition)) continue;
      finish_output();
      return 0;
    }
    if (session.manners.own_words) take_key_budget(arguments, session.context);
    if (session.manners.own_words) use_cache(session, arguments);
    check_pipes(session, verb, arguments);
    session.untrusted = arguments.has(kUntrusted);
    if (const auto file = arguments.value(kKeyFile)) use_key_file(session, *file);
    if (arguments.has(kBudget) && !session.untrusted)
      throw UsageError{"--budget belongs to --untrusted"};
    if (session.untrusted && can_be_sandboxed(verb.name)) {
      const Budget budget = Budget::parse(arguments.value_or(kBudget, ""));
      session.output_budget = budget.output;
      return run_sandboxed(session, reach_of(verb, arguments), budget,
                           [&] { return run_checked(session, verb, arguments); });
    }
    return run_checked(session, verb, arguments);
  } catch (const UsageError& error) {
    return usage(session, error, verb.usage_failure);
  } catch (const Error& error) {
    session.error(error);
    return verb.failure;
  }
}

// Takes OPTION with its value out of WORDS: the program that parses them does not know it.
void take_out(std::vector<char*>& words, std::string_view option) {
  for (size_t i = 1; i < words.size() && words[i] != std::string_view("--"); ++i) {
    const std::string_view word = words[i];
    const bool joined = word.starts_with(std::string(option) + "=");
    if (!joined && word != option) continue;
    const auto at = words.begin() + static_cast<std::ptrdiff_t>(i--);
    words.erase(at, at + (joined ? 1 : 2));
  }
}

// Under Cairn's own name: what TOOL would take for a part of an option is none. True when help was
// asked for and printed.
bool check_tool_line(Session& session, const Tool& tool, int argc, char** argv) {
  const std::vector<Flag> flags = flags_of(tool);
  const Arguments arguments = Arguments::parse(flags, argc, argv, LongNames::kWhole);
  session.json = json_output(session, arguments);
  if (session.json && knows(flags, 'L') && !arguments.has('L'))
    throw UsageError{"--output json belongs to --list"};
  if (!arguments.has('h')) return false;
  const Verb verb{.name = tool.verb,
                  .summary = tool.summary,
                  .synopsis = tool.synopsis,
                  .flags = {},
                  .run = nullptr};
  print_verb_help(session, verb, flags);
  return true;
}

// One of the programs that have a command line of their own.
int run_tool(Session& session, const Tool& tool, int argc, char** argv) {
  try {
    std::vector<char*> words(argv, argv + argc);
    take_configuration(session, tool.flags(), words);
    if (session.manners.own_words) {
      session.verb = tool.verb;
      if (check_tool_line(session, tool, static_cast<int>(words.size()), words.data())) return 0;
      take_key_file(session, words);
      take_cache(session, words);
      if (knows(tool.flags(), kOutput)) take_out(words, "--output");
    }
    argc = static_cast<int>(words.size());
    for (const char* word : words) remember_passwords(word);
    words.push_back(nullptr);
    const int code = tool.run(session, argc, words.data());
    finish_output();
    return code;
  } catch (const UsageError& error) {
    if (session.manners.explains) return usage(session, error, 1);
    session.error(error.message);
  } catch (const Exit& exit) {
    return exit.code;
  } catch (const Error& error) {
    session.error(error);
  } catch (const std::bad_alloc&) {
    session.error("out of memory");
  }
  return 1;
}

// `cairn help VERB` is `cairn VERB --help`. ARGV[0] is "help".
int help_on(Session& session, int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name.empty() || name == "help" || name == "--help" || name == "-h")
    return print_help(session);
  char ask[] = "--help";
  char* line[] = {argv[1], ask, nullptr};
  for (const Verb& verb : verbs())
    if (verb.name == name) return run_verb(session, verb, 2, line);
  for (const Tool& tool : tools())
    if (tool.verb == name) return run_tool(session, tool, 2, line);
  return usage(session, {unknown_verb(session, name)}, 1);
}

// Global options stand before the verb.
int run_img(Session& session, int argc, char** argv) {
  int at = 1;
  for (; at < argc && argv[at][0] == '-'; ++at) {
    const std::string word = argv[at];
    if (word == "--") {
      ++at;
      break;
    }
    if (word == "-h" || word == "--help") return print_help(session);
    if (word == "-V" || word == "--version") {
      print(version_text(session));
      finish_output();
      return 0;
    }
    if (const auto option = configuration_option(word); !option.empty()) {
      if (++at == argc) return usage(session, {"missing argument for option '" + word + "'"}, 1);
      configure(session, option, argv[at]);
      continue;
    }
    std::string trace;
    if (word == "-T" || word == "--trace") {
      if (++at == argc) return usage(session, {"missing argument for option '" + word + "'"}, 1);
      trace = argv[at];
    } else if (word.starts_with("--trace=") || word.starts_with("-T")) {
      trace = word.substr(word[1] == 'T' ? 2 : std::string_view("--trace=").size());
    } else {
      return usage(session, {"unrecognized option '" + word + "'"}, 1);
    }
    if (const auto code = take_trace(session, trace)) return *code;
  }
  if (at == argc) {
    if (session.manners.explains) {
      print_help(session);
      return 1;
    }
    return usage(session, {"Not enough arguments"}, 1);
  }
  const std::string name = argv[at];
  if (session.manners.own_words && name == "help") return help_on(session, argc - at, argv + at);
  if (session.manners.own_words)
    for (const Tool& tool : tools())
      if (tool.verb == name) return run_tool(session, tool, argc - at, argv + at);
  for (const Verb& verb : verbs())
    if (verb.name == name && (session.manners.own_words || !verb.own))
      return run_verb(session, verb, argc - at, argv + at);
  return usage(session, {unknown_verb(session, name)}, 1);
}

}  // namespace

int run_program(int argc, char** argv) {
  open_standard_descriptors();
  const char* slash = argc > 0 ? std::strrchr(argv[0], '/') : nullptr;
  const std::string program = argc == 0 ? "cairn" : slash != nullptr ? slash + 1 : argv[0];
  CancelSource& cancellation = catch_signals(program.c_str());
  try {
    Context context({.workers = std::max(1u, std::thread::hardware_concurrency())});
    take_environment(context);
    register_drivers(context.registry());
    const qemu::Manners manners = qemu::manners_of(program);
    context.profile = manners.tool.empty() ? qemu::own_profile() : qemu::tools_profile();
    set_escaping(manners.escapes);
    Session session{
        .program = program, .manners = manners, .context = context, .cancel = cancellation};
    context.cancel = &cancellation;
    context.warn = [&session](std::string_view line) { session.warning(line); };
    WaitNotes wait_notes(context, manners.bars);
    session.wait_notes = &wait_notes;
    context.tell = [](std::string_view line) {
      wipe_wait_note();
      std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
    };
    context.show = [](std::string_view line) {
      wipe_wait_note();
      std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
      std::fflush(stdout);
    };
    if (session.manners.asks)
      context.secrets().ask = [&cancellation](const std::string& image, bool twice) {
        return ask_passphrase(cancellation, image, twice);
      };
    for (const Tool& tool : tools())
      if (tool.qemu_name == manners.tool) return run_tool(session, tool, argc, argv);
    return run_img(session, argc, argv);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", program.c_str(), error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program.c_str(), error.what());
  }
  return 1;
}

}  // namespace cairn
