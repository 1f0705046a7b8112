#include "daemon/job_recipes.h"

#include <algorithm>
#include <utility>

#include "daemon/commands/commands.h"

namespace cairn::daemon {

bool JobRecipes::concerns(const std::string& command) {
  constexpr std::string_view kCommands[] = {"blockdev-mirror", "blockdev-backup", "block-stream",
                                            "block-commit"};
  return std::find(std::begin(kCommands), std::end(kCommands), command) != std::end(kCommands);
}

void JobRecipes::note(const std::string& command, Value arguments, const live::JobPtr& job,
                      const std::string& group) {
  const std::string id = text_of(arguments, "job-id");
  recipes_[id] = {
      .command = command, .arguments = std::move(arguments), .job = job, .group = group};
}

const JobRecipes::Recipe* JobRecipes::find(const live::JobPtr& job) const {
  const auto found = recipes_.find(job->id());
  const bool own = found != recipes_.end() && found->second.job.lock() == job;
  return own ? &found->second : nullptr;
}

void JobRecipes::set_left(const std::string& id, Left left) { left_[id] = std::move(left); }

JobRecipes::Left JobRecipes::take_left(const std::string& id) {
  const auto found = left_.find(id);
  if (found == left_.end()) return {};
  Left left = std::move(found->second);
  left_.erase(found);
  return left;
}

}  // namespace cairn::daemon
