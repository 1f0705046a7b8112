#include <algorithm>

#include "block/driver.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/job_arguments.h"
#include "job/live/amend.h"
#include "job/live/create.h"

namespace cairn::daemon {
namespace {

// The name of the creation option of DRIVER that a member of the arguments means.
std::string option_name(const Driver& driver, std::string member) {
  const auto known = [&](const std::string& name) {
    return std::any_of(driver.create_options().begin(), driver.create_options().end(),
                       [&](const OptionSpec& spec) { return spec.name == name; });
  };
  if (known(member)) return member;
  std::replace(member.begin(), member.end(), '-', '_');
  return member;
}

// The options that describe what is made, other than its size and the node of its file.
Options creation_options(const Driver& driver, const Value& arguments) {
  Options options;
  for (const auto& [name, value] : *arguments.get_if<Value::Object>()) {
    if (name == "driver" || name == "file" || name == "size" || name == "filename") continue;
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

Task<Value> blockdev_create(Daemon& daemon, Value arguments) {
  live::JobOptions options = job_options(arguments);
  options.auto_dismiss = false;
  daemon.jobs().check_id(options.id);
  const Value& what = *arguments.find("options");
  live::CreationRequest request;
  request.driver = daemon.context().registry().find(text_of(what, "driver"));
  const Value* file = what.find("file");
  const bool of_file = text_of(what, "driver") == "file";
  // The others need what a node cannot be yet: a second file, or a server.
  if (request.driver == nullptr || !request.driver->traits().abilities.create ||
      (!of_file && file == nullptr))
    invalid("Driver does not support blockdev-create");
  for (const std::string_view second : {"data-file", "extents", "header"})
    if (what.find(second) != nullptr)
      invalid("Parameter '" + std::string(second) +
              "' is not supported here; create the image with 'create' and add it then");
  if (file != nullptr && file->get_if<std::string>() == nullptr)
    invalid("Parameter 'file' expects the name of a node; add the file with blockdev-add first");
  if (file != nullptr) request.file_node = *file->get_if<std::string>();
  const int64_t size = number_of(what, "size", 0);
  if (size < 0) invalid("Parameter 'size' expects a non-negative value");
  request.image.size = static_cast<uint64_t>(size);
  request.image.filename = text_of(what, "filename");
  request.image.options = creation_options(*request.driver, what);
  request.image.overwrite = true;
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
