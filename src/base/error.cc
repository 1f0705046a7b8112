#include "base/error.h"

#include <cerrno>

#include "platform/system.h"
#include "platform/types.h"

namespace cairn {

void invalid(const std::string& message) { throw Error(ErrorKind::kInvalid, message); }

int errno_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalid:
      return EINVAL;
    case ErrorKind::kNotFound:
      return ENOENT;
    case ErrorKind::kExists:
      return EEXIST;
    case ErrorKind::kCorrupt:
    case ErrorKind::kIo:
      return EIO;
    case ErrorKind::kUnsupported:
      return ENOTSUP;
    case ErrorKind::kDenied:
      return EACCES;
    case ErrorKind::kLocked:
      return EAGAIN;
    case ErrorKind::kNoSpace:
      return ENOSPC;
    case ErrorKind::kTooLarge:
      return EFBIG;
    case ErrorKind::kNoMedium:
      return ENOMEDIUM;
    case ErrorKind::kCancelled:
      return ECANCELED;
    case ErrorKind::kNoMemory:
      return ENOMEM;
    case ErrorKind::kForked:
      return ENOTRECOVERABLE;
  }
  return EIO;
}

ErrorKind kind_of(int error) {
  switch (error) {
    case EINVAL:
      return ErrorKind::kInvalid;
    case ENOENT:
    case ENOTDIR:
      return ErrorKind::kNotFound;
    case EEXIST:
      return ErrorKind::kExists;
    case ENOTSUP:
    case ENOSYS:
    case ENOTTY:
      return ErrorKind::kUnsupported;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorKind::kDenied;
    case EAGAIN:
      return ErrorKind::kLocked;
    case ENOSPC:
    case EDQUOT:
      return ErrorKind::kNoSpace;
    case EFBIG:
    case EOVERFLOW:
      return ErrorKind::kTooLarge;
    case ENOMEDIUM:
      return ErrorKind::kNoMedium;
    case ECANCELED:
      return ErrorKind::kCancelled;
    case ENOMEM:
      return ErrorKind::kNoMemory;
    default:
      return ErrorKind::kIo;
  }
}

Error::Error(ErrorKind kind, std::string message)
    : kind_(kind), errno_(errno_of(kind)), message_(std::move(message)) {}

Error Error::system(int error, std::string_view message) {
  std::string text(message);
  if (!text.empty()) text += ": ";
  text += platform::error_text(error);
  Error result(kind_of(error), std::move(text));
  result.errno_ = error;
  return result;
}

std::string Error::cause() const { return platform::error_text(errno_); }

Error Error::behind(std::string text) const {
  Error result(kind_, std::move(text));
  result.errno_ = errno_;
  if (message_ != cause()) result.hint(message_);
  for (const Hint& line : hints_) result.hint(line);
  return result;
}

Error& Error::context(std::string_view prefix) & {
  message_.insert(0, ": ").insert(0, prefix);
  return *this;
}

// An empty line, which a caller gives that has nothing to add, is no hint.
Error& Error::hint(std::string text, std::string setting) & {
  if (!text.empty()) hints_.push_back({std::move(text), std::move(setting)});
  return *this;
}

}  // namespace cairn
