#include "job/live/types.h"

namespace cairn::live {
namespace {

constexpr unsigned bit(JobStatus status) { return 1U << static_cast<unsigned>(status); }

constexpr unsigned kUnderWay = bit(JobStatus::kCreated) | bit(JobStatus::kRunning) |
                               bit(JobStatus::kPaused) | bit(JobStatus::kReady) |
                               bit(JobStatus::kStandby);

unsigned followers(JobStatus status) {
  switch (status) {
    case JobStatus::kUndefined:
      return bit(JobStatus::kCreated);
    case JobStatus::kCreated:
      return bit(JobStatus::kRunning) | bit(JobStatus::kAborting) | bit(JobStatus::kNull);
    case JobStatus::kRunning:
      return bit(JobStatus::kPaused) | bit(JobStatus::kReady) | bit(JobStatus::kWaiting) |
             bit(JobStatus::kAborting);
    case JobStatus::kPaused:
      return bit(JobStatus::kRunning);
    case JobStatus::kReady:
      return bit(JobStatus::kStandby) | bit(JobStatus::kWaiting) | bit(JobStatus::kAborting);
    case JobStatus::kStandby:
      return bit(JobStatus::kReady);
    case JobStatus::kWaiting:
      return bit(JobStatus::kPending) | bit(JobStatus::kAborting);
    case JobStatus::kPending:
    case JobStatus::kAborting:
      return bit(JobStatus::kAborting) | bit(JobStatus::kConcluded);
    case JobStatus::kConcluded:
      return bit(JobStatus::kNull);
    case JobStatus::kNull:
      break;
  }
  return 0;
}

unsigned places(JobVerb verb) {
  switch (verb) {
    case JobVerb::kCancel:
      return kUnderWay | bit(JobStatus::kWaiting) | bit(JobStatus::kPending);
    case JobVerb::kComplete:
      return bit(JobStatus::kReady) | bit(JobStatus::kStandby);
    case JobVerb::kFinalize:
      return bit(JobStatus::kPending);
    case JobVerb::kDismiss:
      return bit(JobStatus::kConcluded);
    case JobVerb::kPause:
    case JobVerb::kResume:
    case JobVerb::kSetSpeed:
    case JobVerb::kChange:
      break;
  }
  return kUnderWay;
}

}  // namespace

std::string_view to_string(JobType type) {
  constexpr std::string_view kWords[] = {"create", "amend", "stream", "commit", "mirror", "backup"};
  return kWords[static_cast<unsigned>(type)];
}

std::string_view to_string(JobStatus status) {
  constexpr std::string_view kWords[] = {"undefined", "created",   "running", "paused",
                                         "ready",     "standby",   "waiting", "pending",
                                         "aborting",  "concluded", "null"};
  return kWords[static_cast<unsigned>(status)];
}

std::string_view to_string(JobVerb verb) {
  constexpr std::string_view kWords[] = {"cancel",   "pause",    "resume",  "set-speed",
                                         "complete", "finalize", "dismiss", "change"};
  return kWords[static_cast<unsigned>(verb)];
}

std::string_view to_string(ErrorAction action) {
  constexpr std::string_view kWords[] = {"report", "ignore", "stop"};
  return kWords[static_cast<unsigned>(action)];
}

std::string_view to_string(IoStatus status) {
  constexpr std::string_view kWords[] = {"ok", "failed", "nospace"};
  return kWords[static_cast<unsigned>(status)];
}

bool may_follow(JobStatus status, JobStatus next) { return (followers(status) & bit(next)) != 0; }
bool accepts(JobStatus status, JobVerb verb) { return (places(verb) & bit(status)) != 0; }

}  // namespace cairn::live
