#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "operation/operation.h"
#include "qemu/manners.h"

namespace cairn::cli {

class Progress;
class WaitNotes;
using operation::close_all;

// One run of the program.
struct Session {
  std::string program;  // begins every message
  qemu::Manners manners = {};
  Context& context;
  CancelSource& cancel;
  bool untrusted = false;               // references found in images are not followed
  std::string verb = {};                // the one that runs: the first phase of its progress
  bool json = false;                    // --output json, under Cairn's own name
  std::optional<int> progress_fd = {};  // where lines for programs go; none: progress is for people

  std::string unused_key_file = {};  // what --key-file named, until an image asks for its key
  std::optional<uint64_t> output_budget = {};  // bytes that untrusted images may make us write

  // What receives the target while the work is shut in; the program outside completes it.
  std::shared_ptr<FileReplacement> replacement = {};

  WaitNotes* wait_notes =
      nullptr;  // where the progress of a verb hears that a server is waited for

  // Who asks for what the verb does: what is said on the way is printed, and PROGRESS, which must
  // outlive it, shows the progress of the work.
  operation::Caller caller() const;
  operation::Caller caller(Progress& progress) const;
  // Prints TEXT, which is for people: nothing after --output json.
  void say(std::string_view text) const;
  // "PROGRAM: TEXT" on standard error.
  void error(std::string_view text) const;
  void warning(std::string_view text) const;
  // An error with the lines that say what to do next.
  void error(const Error& error) const;
  // The same after "PREFIX: ".
  void error(std::string_view prefix, const Error& error) const;
};

// A verb ends with this code, everything being said.
struct Exit {
  int code = 1;
};
// Prints the message (no hint line) and ends with CODE.
[[noreturn]] void fail(const Session& session, std::string_view text, int code = 1);

// One verb of the program, as data.
struct Verb {
  std::string_view name;
  std::string_view summary;   // one line for people
  std::string_view synopsis;  // what follows the verb
  std::vector<Flag> flags;
  std::vector<Flag> own_flags = {};  // those that qemu-img's verb has not
  int (*run)(Session& session, Arguments& arguments);
  int failure = 1;         // exit code of an error that reaches the program
  int usage_failure = 1;   // exit code of a wrong command line
  bool size_last = false;  // the last word is taken as it is: "-1G" is no option there
  bool own = false;        // none of qemu-img's
};
// A program of QEMU's that this one is as well: under its name, or as a verb.
struct Tool {
  std::string_view qemu_name, verb;
  std::string_view summary;  // one line for people
  // ARGV[0] is the name. Gives the exit code; may throw Exit, UsageError and Error.
  int (*run)(Session& session, int argc, char** argv);
  // Under Cairn's own name, where whole options only are known:
  std::string_view synopsis;
  std::vector<Flag> (*flags)();
};
// Defined by the table in tools.cc.
const std::vector<Tool>& tools();

// By name. Defined by the table in verbs.cc.
const std::vector<Verb>& verbs();

// Those of rooms that the command line does not include: main() adds them before anything runs.
void add(const Tool& tool);
void add(const Verb& verb);

// All options of VERB: its own and those that every verb has; OWN_WORDS: under Cairn's own name.
std::vector<Flag> flags_of(const Verb& verb, bool own_words);
// The same for one of the programs, under Cairn's own name.
std::vector<Flag> flags_of(const Tool& tool);
bool knows(const std::vector<Flag>& flags, int id);

// --- what the verbs share ---

// Ids of long-only options that several verbs know.
enum LongId : int {
  kObject = 256,
  kImageOpts,
  kOutput,
  kUntrusted,
  kBudget,
  kDisk,
  kKeyFile,
  kOverwrite,
  kLimitRate,
  kFirstOwn = 300,
};
extern const Flag kFormatFlag, kImageOptsFlag, kObjectFlag, kForceShareFlag, kOutputFlag,
    kQuietFlag, kProgressFlag, kUntrustedFlag, kSandboxFlag, kBudgetFlag, kDiskFlag, kOverwriteFlag,
    kLimitRateFlag;

// Creates the objects of --object. True when help was asked for and printed.
bool add_objects(Session& session, const Arguments& arguments);
bool add_objects(Session& session, const std::vector<std::string>& definitions);
// Prints what an object may be, or what one may have, when DEFINITION asks for that ("help",
// "TYPE,help"). Throws kInvalid when it makes no sense.
bool print_object_help(const Session& session, const std::string& definition);
// What --version prints.
std::string version_text(const Session& session);
bool json_output(const Session& session, const Arguments& arguments);
// -t/-T; prints "WHAT: X" and fails when the mode is unknown.
CacheMode cache_mode(const Session& session, const std::string& name, std::string_view what);
// A number of the command line with QEMU's two-line complaint; WHAT as in "image size".
uint64_t size_argument(const Session& session, const std::string& text, std::string_view what,
                       uint64_t least = 0, uint64_t most = INT64_MAX);

// What follows --image-opts; words without '=' are warned of, as in QEMU's tools.
Options image_options(const Session& session, const std::string& text,
                      std::string_view first_key = "file");
// How NAME (a file name, or options after --image-opts) is to be opened, with -f, -U and
// --untrusted taken into account.
OpenRequest image_request(const Session& session, const Arguments& arguments,
                          const std::string& name, const std::optional<std::string>& format);
// Fails when -f and --image-opts are both given.
void check_format_flags(const Session& session, const Arguments& arguments, int code = 1);
// Runs a task to its end on the calling thread.
template <class T>
T run(Session& session, Task<T> task) {
  return session.context.runtime().run(std::move(task));
}
// Option lists of -o, joined; throws what QEMU says about malformed lists. Nothing when -o was not
// given; HELP becomes true for "help" and "?".
std::optional<Options> option_lists(const Session& session, const Arguments& arguments, bool* help);
// Takes compression_level out of the options of a target under Cairn's name: it belongs to the
// work, not to the image. Throws kInvalid when it is out of range or DRIVER has none.
std::optional<uint64_t> take_compression_level(const Session& session, const Driver& driver,
                                               Options& options);
// The protocol by which FILENAME will be made. Fails when nothing can be made there.
const Driver& protocol_for_target(const Session& session, const std::string& filename);
// -o help. FILENAME may be empty.
int print_create_help(Session& session, const std::string& format, const std::string& filename);
// The same for the options that can be amended.
int print_amend_help(Session& session, const std::string& format);
// The format of REGISTRY whose ending FILENAME has; empty when there is none.
std::string format_of_name(const Registry& registry, std::string_view filename);
// The same for an image to be made without -O: "raw" where the name implies none, and always under
// qemu-img's name. Fails when the name implies a format that is not there.
std::string format_for_target(const Session& session, const std::string& filename);
// Prints to standard output and checks: a full disk or a closed pipe is an error.
void print(std::string_view text);
// Flushes standard output; throws when that fails.
void finish_output();

}  // namespace cairn::cli
