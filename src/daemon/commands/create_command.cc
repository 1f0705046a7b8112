#include <algorithm>

#include "block/driver.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/job_arguments.h"
#include "job/live/amend.h"
#include "job/live/create.h"

namespace cairn::daemon {
namespace {

bool has_option(const Driver& driver, std::string_view name) {
  return std::any_of(driver.create_options().begin(), driver.create_options().end(),
                     [&](const OptionSpec& spec) { return spec.name == name; });
}

// The name of the creation option of DRIVER that a member of the arguments means.
std::string option_name(const Driver& driver, std::string member) {
  if (has_option(driver, member)) return member;
  std::replace(member.begin(), member.end(), '-', '_');
  return member;
}

// What says where the image is: no option of it.
constexpr std::string_view kPlaces[] = {"driver",  "file",   "size",      "filename",
                                        "extents", "header", "data-file", "location"};

// The options that describe what is made, other than its size and its files.
Options creation_options(const Driver& driver, const Value& arguments) {
  Options options;
  for (const auto& [name, value] : *arguments.get_if<Value::Object>()) {
    if (std::find(std::begin(kPlaces), std::end(kPlaces), name) != std::end(kPlaces)) continue;
    if (name == "version") {
      options.set("compat", value.scalar_text() == "v2" ? "0.10" : "1.1");
    } else if (const auto* members = value.get_if<Value::Object>()) {
      for (const auto& [inner, text] : *members)
        options.set(name + "." + inner, text.scalar_text());
    } else {
      options.set(option_name(driver, name), value.scalar_text());
    }
  }
  return options;
}

live::CreationFile file_of(const Value& reference) {
  if (const std::string* name = reference.get_if<std::string>()) return *name;
  return Options::from_value(reference);
}

// The files of an image of a format, by the names that its driver has for them.
std::map<std::string, live::CreationFile> files_of(const Value& arguments) {
  std::map<std::string, live::CreationFile> files;
  for (const std::string name : {"file", "data-file", "header"})
    if (const Value* file = arguments.find(name)) files.emplace(name, file_of(*file));
  size_t number = 0;
  if (const Value* extents = arguments.find("extents"))
    for (const Value& extent : *extents->get_if<Value::Array>())
      files.emplace("extents." + std::to_string(number++), file_of(extent));
  return files;
}

// A number in the options of what is made that has to be a multiple of another one.
struct Whole {
  std::string_view driver, option;
  int64_t unit;
  std::string_view refusal;
};
constexpr Whole kWholes[] = {
    {"qcow2", "size", 512, "Image size must be a multiple of 512 bytes"},
    {"parallels", "size", 512, "Image size must be a multiple of 512 bytes"},
    {"vmdk", "size", 512, "Image size must be a multiple of 512 bytes"},
    {"qed", "size", 512,
     "QED image size must be a non-zero multiple of cluster size and less than 70368744177664 "
     "bytes"},
    {"parallels", "cluster-size", 512, "Cluster size must be a multiple of 512 bytes"},
    {"vhdx", "block-size", 1 << 20, "Block size must be a multiple of 1 MB"},
    {"vhdx", "log-size", 1 << 20, "Log size must be a multiple of 1 MB"},
};
constexpr int64_t kLargestVhdxBlock = 256 << 20;

// Why WHAT is refused, which "create" of a command line would round to something near; empty: it is
// not.
std::string refusal_of(const Driver& driver, const Value& what) {
  if (number_of(what, "size", 0) < 0) return "Parameter 'size' expects a non-negative value";
  for (const Whole& one : kWholes)
    if (one.driver == driver.name() && number_of(what, one.option, 0) % one.unit != 0)
      return std::string(one.refusal);
  if (driver.name() == "vhdx" && number_of(what, "block-size", 0) > kLargestVhdxBlock)
    return "Block size must not exceed " + std::to_string(kLargestVhdxBlock);
  return "";
}

Task<Value> blockdev_create(Daemon& daemon, Value arguments) {
  live::JobOptions options = job_options(arguments);
  options.auto_dismiss = false;
  daemon.jobs().check_id(options.id);
  const Value& what = *arguments.find("options");
  live::CreationRequest request;
  request.driver = daemon.context().registry().find(text_of(what, "driver"));
  // Those of which images can be made have arguments in the schema.
  if (request.driver == nullptr || !request.driver->traits().abilities.create ||
      what.find("size") == nullptr)
    invalid("Driver does not support blockdev-create");
  request.files = files_of(what);
  if (const Value* location = what.find("location"))
    request.image.location = Options::from_value(*location);
  request.refusal = refusal_of(*request.driver, what);
  request.image.size = static_cast<uint64_t>(number_of(what, "size", 0));
  request.image.filename = text_of(what, "filename");
  request.image.options = creation_options(*request.driver, what);
  request.image.overwrite = true;
  // Formats that do not know it leave it to the file.
  if (const auto mode = text_of(what, "preallocation");
      !mode.empty() && !has_option(*request.driver, "preallocation")) {
    request.image.preallocation = parse_preallocation(mode);
    request.image.options.erase("preallocation");
  }
  co_await live::launch(daemon.jobs(), std::make_shared<live::CreateJob>(
                                           std::move(options), daemon.graph(), std::move(request)));
  co_return Value::object();
}

Task<Value> blockdev_amend(Daemon& daemon, Value arguments) {
  Graph& graph = daemon.graph();
  const auto change = co_await graph.change();
  const Value& what = *arguments.find("options");
  live::AmendmentRequest request;
  request.node = graph.get(text_of(arguments, "node-name"));
  const Driver& driver = request.node->driver();
  if (text_of(what, "driver") != driver.name())
    invalid("x-blockdev-amend doesn't support changing the block driver");
  if (!driver.offers<Amendable>()) invalid("Driver does not support x-blockdev-amend");
  live::JobOptions options = job_options(arguments);
  options.auto_dismiss = false;
  daemon.jobs().check_id(options.id);
  request.changes.options = Options::from_value(what);
  request.changes.options.erase("driver");
  request.encryption = request.changes.options.string("encrypt.format").value_or("");
  request.changes.options.erase("encrypt.format");
  request.changes.force = flag_of(arguments, "force", false);
  auto job = std::make_shared<live::AmendJob>(std::move(options), graph, std::move(request));
  co_await live::launch(daemon.jobs(), std::move(job));
  co_return Value::object();
}

constexpr Command kCreateCommands[] = {
    {"blockdev-create", blockdev_create},
    {"x-blockdev-amend", blockdev_amend},
};

}  // namespace

std::span<const Command> create_commands() { return kCreateCommands; }

}  // namespace cairn::daemon
