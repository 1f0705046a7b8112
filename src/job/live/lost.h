#pragma once

#include <string>
#include <utility>

#include "job/live/job.h"

namespace cairn::live {

// A job that an earlier process began and that cannot be continued: it fails at once, and stays in
// the list, with the reason, until it is dismissed.
class LostJob final : public Job {
 public:
  LostJob(JobType type, std::string id, std::string reason)
      : Job(type, {.id = std::move(id), .auto_dismiss = false}), reason_(std::move(reason)) {}

 protected:
  Task<void> run() override {
    co_await pause_point();
    throw Error(ErrorKind::kIo, reason_);
  }

 private:
  const std::string reason_;
};

}  // namespace cairn::live
