#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/async.h"
#include "cli/session.h"

namespace cairn::cli::io {

class Shell;

// The options and words of one command line. OPTIONS is in getopt's form; complaints about wrong
// options are printed as getopt does.
class Words {
 public:
  // Throws WrongUsage.
  Words(const std::vector<std::string>& line, const char* options);
  bool has(char option) const;
  std::optional<std::string> value(char option) const;
  size_t times(char option) const;
  const std::vector<std::string>& rest() const { return rest_; }
  // Throws WrongUsage unless the number of words that are no options is between LEAST and MOST.
  void expect(size_t least, size_t most) const;

 private:
  std::vector<std::pair<char, std::string>> given_;
  std::vector<std::string> rest_;
};

// The command line makes no sense: its usage is printed.
struct WrongUsage {};
// The command failed and said so on standard output with this line (empty: nothing more to say).
struct Failed {
  std::string line;
};

struct Command {
  std::string_view name, alias;  // alias may be empty
  std::string_view arguments, summary;
  std::string_view help;    // more lines for `help NAME`; may be empty
  int least = 0, most = 0;  // words after the name, options included; -1: no limit
  bool needs_file = true;
  bool writes = false;
  // LINE[0] is the name. True when it went well.
  Task<bool> (*run)(Shell& shell, std::vector<std::string> line) = nullptr;
};
// By name.
const std::vector<Command>& commands();
const Command* find_command(std::string_view name);
// The rows of the command files.
std::vector<Command> data_commands();
std::vector<Command> async_commands();
std::vector<Command> file_commands();
std::vector<Command> other_commands();

// How an image is opened; kept for `reopen`.
struct OpenHow {
  OpenRequest request;
  bool snapshot = false;
  bool copy_on_read = false;
  bool native_aio = false;
  bool bare_errors = false;    // errors do not say which image it was
  bool was_read_only = false;  // now or before: QEMU's shell then no longer insists on writing
};

class Shell {
 public:
  explicit Shell(Session& the_session) : session(the_session) {}

  // Runs one line; true when there was nothing to fail.
  Task<bool> run_line(std::string line);
  Task<bool> open_file(OpenHow how);
  Task<void> close_file();
  Task<void> drain();
  void print_usage(const Command& command) const;
  // Whether all went well; GOOD: for the commands, it did.
  bool went_well(bool good) const {
    return good && !is_over() && !(request_failed && session.context.profile.explanations);
  }
  // QEMU's shell ends, with nothing more to say, where disks that must be alike are not.
  bool is_over() const {
    return session.context.disks_differ() && !session.context.profile.explanations;
  }

  Session& session;
  NodePtr node;
  OpenHow opened;
  bool image_opts = false;  // names of images are lists of options
  bool read_only = false;
  size_t misalign = 0;  // bytes by which buffers are shifted
  bool quit = false;
  bool request_failed = false;  // an asynchronous one; qemu-io takes no notice of it
  TaskGroup pending;            // asynchronous requests
  unsigned running = 0;         // how many of them have not ended
};

// The option letters that opening knows, for the tool and for `open`: applies one to HOW; a wrong
// value is reported and gives false.
bool apply_cache(Shell& shell, OpenHow& how, const std::string& name);
bool apply_discard(Shell& shell, OpenHow& how, const std::string& name);
bool apply_aio(Shell& shell, OpenHow& how, const std::string& name);

// The words of a command line: blanks part them, nothing quotes or escapes.
std::vector<std::string> split_line(std::string_view line);

// --- arguments; each throws Failed with what is printed ---
// Under Cairn's own name also as "10GiB" and "10GB".
uint64_t number(const Shell& shell, const std::string& text);
uint8_t pattern_byte(const std::string& text);
constexpr uint64_t kMostBytes = 2147483136;  // 2^31 - 512

// Standard output; the Transcript where there is one. Hides cli::print.
void print(std::string_view text);

// --- report.cc ---
// "64 KiB", "1.500 KiB", "40 bytes".
std::string units(double value);
struct Outcome {
  std::string_view verb;  // "read", "wrote", "discard"
  uint64_t offset = 0, done = 0, asked = 0;
  double seconds = 0;
  bool for_machines = false;  // -C
};
void print_outcome(const Outcome& outcome);
void dump(ByteSpan bytes, uint64_t offset);
// Prints where BYTES are not all PATTERN; true when they are.
bool verify(ByteSpan bytes, uint8_t pattern, uint64_t offset);

class Clock {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// --- help.cc ---
// Under Cairn's own name: all commands by subject, or one with an example.
void print_own_help();
void print_own_help(const Command& command);

// --- terminal.cc ---
// Where the commands come from: standard input, with editing, history and completion on a terminal.
class LineSource {
 public:
  explicit LineSource(std::string prompt);
  ~LineSource();
  // The next line without its end; nothing at the end of the input. Blocks.
  std::optional<std::string> next();

 private:
  struct Editor;
  std::string prompt_;
  std::unique_ptr<Editor> editor_;
};

}  // namespace cairn::cli::io
