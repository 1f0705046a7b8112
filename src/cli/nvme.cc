#include "operation/nvme.h"

#include <fmt/core.h>

#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

using operation::NvmeController;

Value described_controller(const NvmeController& controller) {
  Value out = Value::object();
  out.set("address", controller.address);
  if (!controller.driver.empty()) out.set("driver", controller.driver);
  if (!controller.group.empty()) out.set("iommu-group", controller.group);
  if (!controller.model.empty()) out.set("model", controller.model);
  if (!controller.serial.empty()) out.set("serial", controller.serial);
  Value disks = Value::array();
  for (const std::string& disk : controller.disks) disks.push_back("/dev/" + disk);
  out.set("disks", std::move(disks));
  out.set("usable", controller.usable);
  return out;
}

// What a controller is at the moment, for people.
std::string state_of_controller(const NvmeController& controller) {
  if (controller.usable) return "nvme://" + controller.address + "/1";
  std::string state;
  for (const std::string& disk : controller.disks) state += (state.empty() ? "" : " ") + disk;
  if (state.empty()) state = "-";
  if (controller.group.empty()) state += "  (no IOMMU)";
  if (!controller.model.empty()) state += "  " + controller.model;
  return state;
}

int list_controllers(const Session& session) {
  const std::vector<NvmeController> all = operation::list_nvme(session.caller());
  if (session.json) {
    Value controllers = Value::array();
    for (const NvmeController& controller : all)
      controllers.push_back(described_controller(controller));
    Value out = Value::object();
    out.set("controllers", std::move(controllers));
    print_report(session, out);
    return 0;
  }
  if (all.empty()) {
    session.say("This machine has no NVMe controller.\n");
    return 0;
  }
  session.say(fmt::format("{:14}{:10}{:7}{}\n", "address", "driver", "group", "disks"));
  for (const NvmeController& controller : all)
    session.say(fmt::format("{:14}{:10}{:7}{}\n", controller.address,
                            controller.driver.empty() ? "-" : controller.driver,
                            controller.group.empty() ? "-" : controller.group,
                            state_of_controller(controller)));
  return 0;
}

int run_nvme(Session& session, Arguments& arguments) {
  const std::vector<std::string>& words = arguments.words();
  const std::string action = words.empty() ? "" : words[0];
  if (action == "list" && words.size() == 1) return list_controllers(session);
  if ((action != "bind" && action != "unbind") || words.size() != 2)
    throw UsageError{"Expecting list, bind ADDRESS or unbind ADDRESS"};
  if (action == "bind")
    operation::bind_nvme(session.caller(), words[1]);
  else
    operation::unbind_nvme(session.caller(), words[1]);
  // Programs hear what there is now.
  return session.json ? list_controllers(session) : 0;
}

}  // namespace

Verb nvme_verb() {
  return {.name = "nvme",
          .summary = "lists NVMe controllers, takes one from the kernel and gives it back",
          .synopsis = "list | bind ADDRESS | unbind ADDRESS",
          .flags = {kOutputFlag},
          .run = run_nvme,
          .own = true};
}

}  // namespace cairn::cli
