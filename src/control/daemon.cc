#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <iterator>

#include "cli/nbd/background.h"
#include "cli/signals.h"
#include "control/control.h"
#include "control/ids.h"
#include "control/pid_file.h"
#include "control/service.h"
#include "control/successor.h"
#include "daemon/config.h"
#include "daemon/journal/job_journal.h"
#include "daemon/line.h"
#include "daemon/reload.h"

namespace cairn::control {
namespace {

using daemon::Daemon;

// The command line: what is done in its order, and what is not.
struct DaemonLine {
  std::vector<daemon::LineStep> steps;
  bool daemonize = false;
  bool check = false;  // and do nothing
  std::string pid_file;
  std::string log;                       // where events go; empty: nowhere
  std::vector<std::string> configs;      // absolute paths of the configuration files
  int reload = -1;                       // readable when they are to be read again
  int restart = -1;                      // readable when another process is to take over
  std::optional<Inheritance> inherited;  // of the daemon that this one succeeds
};

const char* name_of(int id) {
  switch (id) {
    case kDaemonBlockdev:
      return "blockdev";
    case kDaemonExport:
      return "export";
    case kDaemonNbdServer:
      return "nbd-server";
    case kDaemonChardev:
      return "chardev";
    case kDaemonMonitor:
      return "monitor";
    case kDaemonObject:
      return "object";
    case kDaemonMetrics:
      return "metrics";
    case kDaemonState:
      return "state";
    default:
      return nullptr;
  }
}

// The options that SESSION's program has: qemu-storage-daemon shortens long ones, and what it does
// not know would make them ambiguous.
std::vector<Flag> flags_of(const Session& session) {
  std::vector<Flag> flags = daemon_flags();
  if (!session.context.profile.extensions)
    std::erase_if(flags, [](const Flag& flag) {
      return flag.id == kDaemonConfig || flag.id == kDaemonCheckConfig ||
             flag.id == kDaemonMetrics || flag.id == kDaemonLog || flag.id == kDaemonState;
    });
  return flags;
}

void print_help(const Session& session) {
  print("Usage: " + session.program + " [options]\nQEMU storage daemon\n\n" +
        "  -h, --help             display this help and exit\n"
        "  -V, --version          output version information and exit\n");
  for (const Flag& flag : flags_of(session))
    print("  --" + std::string(flag.long_name) +
          (flag.value_name != nullptr ? " " + std::string(flag.value_name) : std::string()) +
          "\n                         " + flag.help + "\n");
}

Arguments parse_words(const Session& session, const std::vector<Flag>& flags, int argc,
                      char** argv) {
  if (session.manners.whole_options) return Arguments::parse(flags, argc, argv, LongNames::kWhole);
  try {
    return Arguments::parse(flags, argc, argv, LongNames::kShortened);
  } catch (const UsageError& error) {
    constexpr std::string_view kMissing = "missing argument for option ";
    if (!error.message.starts_with(kMissing)) throw;
    throw UsageError{"option " + error.message.substr(kMissing.size()) + " requires an argument"};
  }
}

// Nothing when help or the version was asked for and printed.
std::optional<DaemonLine> parse_line(Session& session, int argc, char** argv) {
  std::vector<Flag> flags = flags_of(session);
  flags.push_back({'h', "help", nullptr, "print this help"});
  flags.push_back({'V', "version", nullptr, "print the version"});
  const Arguments arguments = parse_words(session, flags, argc, argv);
  DaemonLine line;
  if (session.context.profile.extensions) line.inherited = take_inheritance();
  for (const auto& [id, value] : arguments.given()) {
    if (id == 'h') {
      print_help(session);
      return std::nullopt;
    }
    if (id == 'V') {
      print(version_text(session));
      return std::nullopt;
    }
    if (id == kDaemonDaemonize) line.daemonize = true;
    if (id == kDaemonPidfile) line.pid_file = value;
    if (id == kDaemonLog) line.log = value;
    if (id == kDaemonCheckConfig) line.check = true;
    if (id == kDaemonConfig) line.configs.push_back(std::filesystem::absolute(value));
    // What a successor does is not theirs to say.
    if (line.inherited) continue;
    if (id == kDaemonConfig) {
      std::vector<daemon::LineStep> steps = daemon::read_config(value);
      std::move(steps.begin(), steps.end(), std::back_inserter(line.steps));
    }
    if (const char* name = name_of(id))
      line.steps.push_back({name, value, "--" + std::string(name) + " " + value, true});
  }
  if (!arguments.words().empty())
    fail(session, arguments.words().front() + ": Unexpected argument");
  return line;
}

Task<void> run_steps(Daemon& running, const DaemonLine& line, bool state) {
  for (const daemon::LineStep& step : line.steps) {
    if (running.stop().requested()) co_return;
    if ((step.option == "state") != state) continue;
    try {
      co_await daemon::run_option(running, step.option, step.argument);
    } catch (Error& error) {
      throw error.context(step.where);
    }
  }
}

// Does what the options say, one after the other. Jobs that were kept begin before anybody who uses
// their disks can change them.
Task<void> run_line(Daemon& running, const DaemonLine& line) {
  co_await run_steps(running, line, true);
  daemon::JobJournal* journal = running.journal();
  if (journal != nullptr && journal->has_jobs()) co_await running.graph().hold_new_users(true);
  co_await finally(
      [&]() -> Task<void> {
        co_await run_steps(running, line, false);
        if (journal != nullptr && !running.stop().requested()) co_await journal->resume();
      },
      [&] { return running.graph().hold_new_users(false); });
}

void check_steps(const DaemonLine& line) {
  for (const daemon::LineStep& step : line.steps) {
    try {
      daemon::check_option(step.option, step.argument);
    } catch (Error& error) {
      throw error.context(step.where);
    }
  }
}

// What is reported and warned of goes to the log as well.
void open_log(const Session& session, const std::string& path, daemon::DaemonOptions& options) {
  const auto log = std::make_shared<daemon::EventLog>(path, STDERR_FILENO);
  options.log = log;
  options.report = [log, before = options.report](std::string_view text) {
    before(text);
    log->write("info", "reload", daemon::event_members("message", text));
  };
  session.context.warn = [log, before = session.context.warn](std::string_view text) {
    before(text);
    log->write("warning", "warning", daemon::event_members("message", text));
  };
}

void take_pid_file(std::optional<PidFile>& file, const std::string& path, bool on) {
  if (path.empty()) return;
  if (on)
    file.emplace(path);
  else if (file)
    file->leave();
  if (!on) file.reset();
}

// Does what the options say, or takes over what another daemon has.
Task<void> begin(Daemon& running, const DaemonLine& line, std::optional<PidFile>& pid_file) {
  if (!line.inherited) {
    co_await run_line(running, line);
    take_pid_file(pid_file, line.pid_file, true);
    co_return;
  }
  daemon::Succession succession(Socket(line.inherited->link), line.inherited->sockets);
  std::exception_ptr error;
  std::string reason;
  try {
    co_await succession.take_over(running);
    take_pid_file(pid_file, line.pid_file, true);
  } catch (const Error& failed) {
    reason = failed.message();
    error = std::current_exception();
  }
  if (!error) {
    co_await succession.finish(running);
    co_return;
  }
  take_pid_file(pid_file, line.pid_file, false);
  co_await succession.give_up(running, reason);
  std::rethrow_exception(error);
}

Task<void> run_prepared(Session& session, DaemonLine line, daemon::DaemonOptions options,
                        Background& background) {
  if (!line.daemonize) options.streams = {.input = STDIN_FILENO, .output = STDOUT_FILENO};
  options.show = [](std::string_view text) {
    std::printf("%.*s\n", static_cast<int>(text.size()), text.data());
    std::fflush(stdout);
  };
  options.overdue = [&session] {
    session.error("something does not end: the daemon ends without it");
    ::_exit(1);
  };
  options.report = [&session](std::string_view text) { session.error(text); };
  if (!line.log.empty()) open_log(session, line.log, options);
  std::optional<PidFile> pid_file;
  options.hold_pid_file = [&](bool on) { take_pid_file(pid_file, line.pid_file, on); };
  Daemon running(session.context, session.cancel, std::move(options));
  std::copy_if(line.steps.begin(), line.steps.end(), std::back_inserter(running.sections()),
               [](const daemon::LineStep& step) { return !step.typed; });
  daemon::Reloader reloader(running, line.configs, line.reload);
  daemon::RestartSignal restarter(running, line.restart);
  co_await finally(
      [&]() -> Task<void> {
        co_await begin(running, line, pid_file);
        if (line.daemonize && ::chdir("/") != 0)
          throw Error::system(errno, "Could not chdir to root directory");
        background.ready(false);
        if (line.reload >= 0) running.spawn(reloader.serve());
        if (line.restart >= 0) running.spawn(restarter.serve());
        co_await running.run();
      },
      [&] {
        reloader.stop();
        restarter.stop();
        return running.shut_down();
      });
}

// Help on what an option takes; true when it was asked for and printed.
bool print_option_help(const Session& session, const DaemonLine& line) {
  for (const daemon::LineStep& step : line.steps) {
    if (!step.typed) continue;
    const std::string text =
        daemon::help_of(step.option, step.argument, session.context.profile.extensions);
    if (text.empty()) continue;
    print(text);
    return true;
  }
  return false;
}

}  // namespace

int run_daemon(Session& session, int argc, char** argv) {
  std::optional<DaemonLine> line = parse_line(session, argc, argv);
  if (!line || print_option_help(session, *line)) {
    finish_output();
    return 0;
  }
  if (line->check) {
    check_steps(*line);
    return 0;
  }
  daemon::DaemonOptions options;
  if (session.context.profile.extensions)
    options.start_successor = successor_of_this(take_service_variables(options));
  // Before anything has a thread: what the child has not, nobody else has.
  Background background;
  if (line->daemonize && !line->inherited && background.begin() == Background::Role::kParent)
    return background.wait();
  take_time_to_end();
  if (!line->configs.empty()) line->reload = catch_signal(SIGHUP);
  if (session.context.profile.extensions) line->restart = catch_signal(SIGUSR2);
  const operation::DisksOutliveServer unhurried(session.context);
  Worker& worker = session.context.runtime().worker(0);
  run(session,
      run_on(worker, run_prepared(session, std::move(*line), std::move(options), background)));
  return 0;
}

}  // namespace cairn::control
