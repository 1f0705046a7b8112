#include "daemon/job_starts.h"

#include <utility>

#include "async/finally.h"
#include "base/error.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"

namespace cairn::daemon {
namespace {

// Notes the recipes of the jobs, too.
Task<void> begin_together(Daemon& daemon, const std::vector<JobStart>& starts) {
  Value actions = Value::array();
  for (const JobStart& start : starts) {
    Value action = Value::object();
    action.set("type", start.command);
    action.set("data", start.arguments);
    actions.push_back(std::move(action));
  }
  Value properties = Value::object();
  properties.set("completion-mode", "grouped");
  Value arguments = Value::object();
  arguments.set("actions", std::move(actions));
  arguments.set("properties", std::move(properties));
  co_await find_command("transaction")->run(daemon, std::move(arguments));
}

Task<void> begin_one(Daemon& daemon, const JobStart& start) {
  co_await find_command(start.command)->run(daemon, start.arguments);
  daemon.job_recipes().note(start.command, start.arguments,
                            daemon.jobs().find(text_of(start.arguments, "job-id")));
}

}  // namespace

Task<void> begin_jobs(Daemon& daemon, std::vector<JobStart> starts) {
  for (const JobStart& start : starts)
    if (!JobRecipes::concerns(start.command)) invalid("'" + start.command + "' begins no job");
  for (const JobStart& start : starts)
    daemon.job_recipes().set_left(text_of(start.arguments, "job-id"), start.left);
  co_await finally(
      [&]() -> Task<void> {
        if (starts.size() == 1)
          co_await begin_one(daemon, starts.front());
        else
          co_await begin_together(daemon, starts);
      },
      [&]() -> Task<void> {
        // No other job of these names is to begin with it.
        for (const JobStart& start : starts)
          daemon.job_recipes().take_left(text_of(start.arguments, "job-id"));
        co_return;
      });
}

}  // namespace cairn::daemon
