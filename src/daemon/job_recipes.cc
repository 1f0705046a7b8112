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

void JobRecipes::note(const std::string& command, Value arguments, const live::JobPtr& job) {
  const std::string id = text_of(arguments, "job-id");
  recipes_[id] = {.command = command, .arguments = std::move(arguments), .job = job};
}

const JobRecipes::Recipe* JobRecipes::find(const live::JobPtr& job) const {
  const auto found = recipes_.find(job->id());
  const bool own = found != recipes_.end() && found->second.job.lock() == job;
  return own ? &found->second : nullptr;
}

void JobRecipes::set_remaining(const std::string& id, DirtyBitmapPtr bitmap) {
  remaining_[id] = std::move(bitmap);
}

DirtyBitmapPtr JobRecipes::take_remaining(const std::string& id) {
  const auto found = remaining_.find(id);
  if (found == remaining_.end()) return nullptr;
  DirtyBitmapPtr bitmap = std::move(found->second);
  remaining_.erase(found);
  return bitmap;
}

}  // namespace cairn::daemon
