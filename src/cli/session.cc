#include "cli/session.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/size.h"
#include "base/version.h"
#include "block/capabilities/capabilities.h"
#include "block/driver.h"
#include "cli/escape.h"
#include "cli/help.h"
#include "cli/progress.h"
#include "cli/size_text.h"
#include "cli/waiting.h"
#include "operation/create.h"
#include "operation/objects.h"
#include "platform/file.h"

namespace cairn::cli {

const Flag kFormatFlag{'f', "format", "FMT", "format of the image (default: detected)"};
const Flag kImageOptsFlag{kImageOpts, "image-opts", nullptr,
                          "the image is a list of options (driver=qcow2,file.filename=…), no name"};
const Flag kObjectFlag{kObject, "object", "TYPE,id=ID,…", "an object, such as a secret"};
const Flag kForceShareFlag{'U', "force-share", nullptr,
                           "open the image even when another program writes to it"};
const Flag kOutputFlag{kOutput, "output", "human|json", "format of the output"};
const Flag kQuietFlag{'q', "quiet", nullptr, "print errors only"};
const Flag kProgressFlag{'p', "progress", nullptr,
                         "show progress; `--progress json[,fd=N]` writes lines for programs"};
const Flag kUntrustedFlag{kUntrusted, "untrusted", nullptr,
                          "do not open files that the image refers to"};
const Flag kSandboxFlag{kUntrusted, "untrusted", nullptr,
                        "do not open files that the image refers to, and run in a sandbox"};
const Flag kDiskFlag{kDisk, "disk", "DISK",
                     "which disk of an appliance (the first image): number, identifier or file"};
const Flag kOverwriteFlag{
    kOverwrite, "overwrite", nullptr,
    "replace a target that exists; it stays as it is until the new one is complete"};
const Flag kLimitRateFlag{kLimitRate, "limit-rate", "BYTES",
                          "read and write at most so many bytes a second each"};
const Flag kBudgetFlag{kBudget, "budget", "memory=SIZE,cpu=SECONDS,output=SIZE",
                       "limits for an untrusted image (1G, 600, 100 times its size)"};

void Session::error(std::string_view text) const {
  wipe_wait_note();
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s\n", program.c_str(), shown_lines(text).c_str());
}
void Session::say(std::string_view text) const {
  if (!json) print(text);
}
void Session::warning(std::string_view text) const { error("warning: " + std::string(text)); }
// HINT with the flag that sets what it is about.
static std::string with_flag(const Hint& hint) {
  if (hint.setting.empty()) return hint.text;
  const bool sentence = hint.text.ends_with('.');
  return hint.text.substr(0, hint.text.size() - (sentence ? 1 : 0)) + " (--" + hint.setting +
         (sentence ? ")." : ")");
}
void Session::error(const Error& caught) const {
  std::string text = caught.message();
  // Each layer says what it could not open; people need to read it once.
  if (manners.explains) {
    const size_t end = text.find("': ");
    const std::string opening = end == std::string::npos ? "" : text.substr(0, end + 3);
    if (opening.starts_with("Could not open '"))
      while (text.compare(opening.size(), opening.size(), opening) == 0)
        text.erase(0, opening.size());
  }
  error(shown(text));
  for (const Hint& line : caught.hints())
    std::fprintf(stderr, "%s\n", shown_lines(with_flag(line)).c_str());
}
void Session::error(std::string_view prefix, const Error& caught) const {
  Error whole = caught;
  error(whole.context(prefix));
}

operation::Caller Session::caller() const {
  operation::Caller asking{.context = context, .cancel = cancel};
  asking.warn = [this](std::string_view line) { warning(line); };
  asking.note = [this](std::string_view line) { error(line); };
  asking.guarded = manners.guards;
  asking.pipes = manners.own_words;
  asking.name = verb;
  asking.untrusted = untrusted;
  asking.output_budget = output_budget;
  asking.replacement = replacement;
  return asking;
}
operation::Caller Session::caller(Progress& progress) const {
  operation::Caller asking = caller();
  asking.progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); };
  asking.phase = [&progress](std::string_view name) { progress.begin_phase(name); };
  return asking;
}

std::string version_text(const Session& session) {
  const std::string own(cairn::version());
  return session.manners.tool.empty()
             ? "cairn " + own + "\n"
             : qemu::version_text(session.manners.tool, session.program, own);
}

void fail(const Session& session, std::string_view text, int code) {
  session.error(text);
  throw Exit{code};
}

void print(std::string_view text) {
  wipe_wait_note();
  const std::string safe = shown_lines(text);
  if (std::fwrite(safe.data(), 1, safe.size(), stdout) != safe.size())
    throw Error::system(errno, "standard output");
}
void finish_output() {
  if (std::fflush(stdout) != 0) throw Error::system(errno, "standard output");
}

bool print_object_help(const Session& session, const std::string& definition) {
  const Options properties = operation::parse_object(definition);
  const auto asks = [](std::string_view word) { return word == "help" || word == "?"; };
  const std::string type = properties.string("qom-type").value_or("");
  if (!asks(type) && !properties.has("help") && !properties.has("?")) return false;
  for (const ObjectType& known : object_types()) {
    if (known.name != type) continue;
    print(type + " options:\n");
    for (const ObjectProperty& each : known.properties)
      if (session.context.profile.extensions || !each.extension)
        print("  " + std::string(each.name) + "=<" + std::string(each.type) + ">\n");
    return true;
  }
  print("List of user creatable objects:\n");
  for (const ObjectType& known : object_types()) print("  " + std::string(known.name) + "\n");
  return true;
}

bool add_objects(Session& session, const Arguments& arguments) {
  return add_objects(session, arguments.values(kObject));
}

bool add_objects(Session& session, const std::vector<std::string>& definitions) {
  for (const std::string& definition : definitions) {
    if (print_object_help(session, definition)) return true;
    Options properties = operation::parse_object(definition);
    const auto type = properties.string("qom-type");
    if (!type) throw Error(ErrorKind::kInvalid, "Parameter 'qom-type' is missing");
    properties.erase("qom-type");
    if (session.manners.guards && *type == "secret" && properties.has("data"))
      session.warning(
          "a secret given as data= can be read by everybody who lists the processes; "
          "file=, or no secret and an answer on the terminal, keep it to yourself");
    session.context.add_object(*type, std::move(properties));
  }
  return false;
}

bool json_output(const Session& session, const Arguments& arguments) {
  const std::string output = arguments.value_or(kOutput, "human");
  if (output != "human" && output != "json")
    fail(session, "--output must be used with human or json as argument.");
  return output == "json";
}

CacheMode cache_mode(const Session& session, const std::string& name, std::string_view what) {
  const auto mode = CacheMode::parse(name);
  if (!mode) fail(session, std::string(what) + ": " + name);
  return *mode;
}

uint64_t size_argument(const Session& session, const std::string& text, std::string_view what,
                       uint64_t least, uint64_t most) {
  uint64_t value = 0;
  const SizeError error = parse_size(plain_size(session, text), &value, most);
  if (error == SizeError::kSyntax) {
    session.error("Invalid " + std::string(what) +
                  " specified. You may use k, M, G, T, P or E suffixes for");
    fail(session, "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
  }
  if (error == SizeError::kRange || value < least)
    fail(session,
         fmt::format("Invalid {} specified. Must be between {} and {}.", what, least, most));
  return value;
}

Options image_options(const Session& session, const std::string& text, std::string_view first_key) {
  std::vector<std::string> bare;
  Options options = Options::parse_list(text, first_key, &bare);
  for (const std::string& word : bare) {
    const bool off = word.starts_with("no") && word.size() > 2;
    session.warning("short-form boolean option '" + word + "' deprecated");
    std::fprintf(stderr, "Please use %s=%s instead\n", word.c_str() + (off ? 2 : 0),
                 off ? "off" : "on");
  }
  return options;
}

OpenRequest image_request(const Session& session, const Arguments& arguments,
                          const std::string& name, const std::optional<std::string>& format) {
  OpenRequest request;
  request.format = format.value_or("");
  if (arguments.has(kImageOpts)) {
    request.options = image_options(session, name);
    request.image_opts = true;
    request.display = name;
    if (arguments.has('U') && request.options.boolean("force-share") == false)
      fail(session, "--force-share/-U conflicts with image options");
  } else {
    request.filename = name;
    // An empty name is one that nothing has; it does not ask for probing.
    if (format && format->empty()) request.options.set("driver", "");
  }
  request.flags.force_share = arguments.has('U');
  if (const auto disk = arguments.value(kDisk)) request.options.set("disk", *disk);
  if (session.untrusted) request.flags.references.mode = ReferencePolicy::Mode::kDeny;
  return request;
}

void check_format_flags(const Session& session, const Arguments& arguments, int code) {
  if (arguments.has(kImageOpts) && arguments.has('f'))
    fail(session, "--image-opts and --format are mutually exclusive", code);
}

std::optional<Options> option_lists(const Session& session, const Arguments& arguments,
                                    bool* help) {
  const std::vector<std::string> lists = arguments.values('o');
  if (lists.empty()) return std::nullopt;
  std::string joined;
  for (const std::string& list : lists) {
    const size_t last = list.find_last_not_of(',');
    const size_t commas = last == std::string::npos ? list.size() : list.size() - last - 1;
    if (list.empty() || list.front() == ',' || commas % 2 != 0)
      fail(session, "Invalid option list: " + list);
    joined += (joined.empty() ? "" : ",") + list;
  }
  Options options = Options::parse_list(joined);
  if (options.has("help") || options.has("?")) *help = true;
  options.erase("id");
  plain_sizes(session, options);
  return options;
}

std::optional<uint64_t> take_compression_level(const Session& session, const Driver& driver,
                                               Options& options) {
  if (!session.manners.own_words || !driver.offers<CompressedWriter>()) return std::nullopt;
  return operation::take_compression_level(options);
}

namespace {
std::string_view type_name(OptionType type) {
  switch (type) {
    case OptionType::kString:
      return "<str>";
    case OptionType::kBool:
      return "<bool (on/off)>";
    case OptionType::kNumber:
      return "<num>";
    case OptionType::kSize:
      return "<size>";
  }
  return "";
}

std::string help_line(const OptionSpec& spec) {
  std::string line = "  " + std::string(spec.name) + "=" + std::string(type_name(spec.type));
  if (line.size() < 24) line.resize(24, ' ');
  return line + " - " + std::string(spec.help) + "\n";
}
}  // namespace

int print_amend_help(Session& session, const std::string& format) {
  const Driver* driver = session.context.registry().find(format);
  if (driver == nullptr) fail(session, unknown_format(session, format));
  if (!driver->offers<Amendable>())
    fail(session, "Format driver '" + format + "' does not support option amendment");
  std::vector<std::string> lines;
  for (const OptionSpec& spec : driver->amend_options()) lines.push_back(help_line(spec));
  std::sort(lines.begin(), lines.end());
  print("Amend options for '" + format + "':\n");
  for (const std::string& line : lines) print(line);
  return 0;
}

const Driver& protocol_for_target(const Session& session, const std::string& filename) {
  const Driver& protocol = protocol_of(session.context, filename);
  if (!protocol.abilities().create)
    fail(session,
         "Protocol driver '" + std::string(protocol.name()) + "' does not support image creation");
  return protocol;
}

int print_create_help(Session& session, const std::string& format, const std::string& filename) {
  const Registry& registry = session.context.registry();
  const Driver* driver = registry.find(format);
  if (driver == nullptr) fail(session, unknown_format(session, format));
  if (!driver->abilities().create)
    fail(session, "Format driver '" + format + "' does not support image creation");
  std::vector<std::string> lines;
  std::vector<std::string_view> seen;
  const auto add = [&](const OptionSchema& schema) {
    for (const OptionSpec& spec : schema) {
      if (!session.context.profile.offers(spec)) continue;
      if (std::find(seen.begin(), seen.end(), spec.name) != seen.end()) continue;
      seen.push_back(spec.name);
      lines.push_back(help_line(spec));
    }
  };
  add(driver->create_options());
  if (session.manners.own_words && driver->offers<CompressedWriter>())
    add({{"compression_level", OptionType::kNumber, "",
          "How hard to compress (-c): zlib 1 to 12, zstd 1 to 22; not kept in the image"}});
  if (!filename.empty()) add(protocol_for_target(session, filename).create_options());
  std::sort(lines.begin(), lines.end());
  print(filename.empty() ? "Supported " + format + " options:\n" : "Supported options:\n");
  for (const std::string& line : lines) print(line);
  if (filename.empty())
    print(
        "\nThe protocol level may support further options.\n"
        "Specify the target filename to include those options.\n");
  return 0;
}

std::string format_of_name(const Registry& registry, std::string_view filename) {
  const size_t slash = filename.rfind('/');
  const size_t dot = filename.rfind('.');
  if (dot == std::string_view::npos || (slash != std::string_view::npos && dot < slash)) return {};
  std::string ending(filename.substr(dot + 1));
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Driver* driver : registry.all()) {
    const std::vector<std::string_view>& known = driver->traits().endings;
    if (std::find(known.begin(), known.end(), ending) != known.end())
      return std::string(driver->name());
  }
  return {};
}

namespace {
// A file whose ending promises something else, such as an archive, must not become a raw disk.
void refuse_unknown_ending(const Session& session, const std::string& filename) {
  const std::string name = filename.substr(filename.rfind('/') + 1);
  const size_t dot = name.rfind('.');
  // Neither an ending nor a hidden file without one.
  if (dot == std::string::npos || dot == 0 || dot + 1 == name.size()) return;
  const auto status = platform::status(filename);
  if (status && !status->is_regular()) return;
  if (protocol_of(session.context, filename).name() != "file") return;
  session.error("'" + filename + "': the ending '" + name.substr(dot) +
                "' stands for no format that is known");
  std::fprintf(stderr,
               "Name the format with -O (create: -f), such as -O raw, or give the file another "
               "ending.\n");
  throw Exit{};
}
}  // namespace

std::string format_for_target(const Session& session, const std::string& filename) {
  std::string format;
  if (session.manners.endings) format = format_of_name(session.context.registry(), filename);
  if (format.empty()) {
    if (session.manners.endings) refuse_unknown_ending(session, filename);
    return "raw";
  }
  // Raw bytes under such a name would mislead everybody who meets the file.
  if (session.context.registry().find(format) == nullptr)
    fail(session, "'" + filename + "' has the ending of the format " + format +
                      ", which cannot be written; name another one to use that ending anyway");
  return format;
}

}  // namespace cairn::cli
