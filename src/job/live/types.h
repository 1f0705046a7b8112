#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace cairn::live {

enum class JobType : uint8_t { kCreate, kAmend, kStream, kCommit, kMirror, kBackup };

enum class JobStatus : uint8_t {
  kUndefined,
  kCreated,
  kRunning,
  kPaused,
  kReady,    // what remains is to be asked for: the job keeps its target equal until then
  kStandby,  // paused while ready
  kWaiting,  // for others of its transaction
  kPending,  // for the permission to make its changes
  kAborting,
  kConcluded,
  kNull,  // gone
};

enum class JobVerb : uint8_t {
  kCancel,
  kPause,
  kResume,
  kSetSpeed,
  kComplete,
  kFinalize,
  kDismiss,
  kChange,
};

// What to do about a request that fails.
enum class OnError : uint8_t {
  kReport,  // the job fails
  kIgnore,  // the request is tried again, with growing waits
  kEnospc,  // the job is paused where space is missing, else it fails
  kStop,    // the job is paused
  kAuto,    // as kEnospc
};

enum class ErrorAction : uint8_t { kReport, kIgnore, kStop };
enum class IoStatus : uint8_t { kOk, kFailed, kNoSpace };

// The words of QMP.
std::string_view to_string(JobType type);
std::string_view to_string(JobStatus status);
std::string_view to_string(JobVerb verb);
std::string_view to_string(ErrorAction action);
std::string_view to_string(IoStatus status);

// True where STATUS may be followed by NEXT, and where VERB is accepted in STATUS.
bool may_follow(JobStatus status, JobStatus next);
bool accepts(JobStatus status, JobVerb verb);

// What a request of a job that failed did.
enum class JobSide : uint8_t { kRead, kWrite };

struct JobOptions {
  std::string id;
  int64_t speed = 0;  // bytes a second; 0: no limit
  bool auto_finalize = true;
  bool auto_dismiss = true;
};

struct JobInfo {
  std::string id;
  JobType type = JobType::kCreate;
  JobStatus status = JobStatus::kUndefined;
  uint64_t done = 0;  // units of progress: bytes, or steps of a creation
  uint64_t total = 0;
  int64_t speed = 0;
  bool busy = false;
  bool paused = false;
  bool stays_paused = false;  // until somebody resumes it: a command or an error paused it
  bool ready = false;
  IoStatus io_status = IoStatus::kOk;
  bool auto_finalize = true;
  bool auto_dismiss = true;
  bool undone = false;  // it, or a job that concludes together with it, failed or was cancelled
  std::optional<std::string> error = {};
  std::optional<bool> actively_synced = {};  // mirrors
};

// Something happened to a job; what is not named by the kind is empty.
struct JobEvent {
  enum class Kind : uint8_t {
    kStatus,     // STATUS
    kReady,      // with progress
    kPending,    //
    kCompleted,  // with progress; ERROR where it failed
    kCancelled,  // with progress
    kError,      // SIDE, ACTION: a request failed
  };
  Kind kind = Kind::kStatus;
  std::string id;
  JobType type = JobType::kCreate;
  JobStatus status = JobStatus::kUndefined;
  uint64_t done = 0;
  uint64_t total = 0;
  int64_t speed = 0;
  std::optional<std::string> error = {};
  JobSide side = JobSide::kRead;
  ErrorAction action = ErrorAction::kReport;
};

// Is given the events in their order, from any worker, one call at a time. It must not call jobs.
using JobListener = std::function<void(const JobEvent&)>;

}  // namespace cairn::live
