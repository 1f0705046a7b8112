#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cairn {

// What users must be able to distinguish. Every kind has one errno, which the C ABI, the JSON
// outputs and the QEMU-named tools report.
enum class ErrorKind {
  kInvalid,      // EINVAL: a wrong argument, or a header that makes no sense
  kNotFound,     // ENOENT
  kExists,       // EEXIST
  kCorrupt,      // EIO: the image contradicts itself
  kIo,           // EIO, or what the system reported
  kUnsupported,  // ENOTSUP
  kDenied,       // EACCES / EPERM
  kLocked,       // EAGAIN: somebody else uses the image
  kNoSpace,      // ENOSPC
  kTooLarge,     // EFBIG
  kNoMedium,     // ENOMEDIUM
  kCancelled,    // ECANCELED
  kNoMemory,     // ENOMEM
  kForked,       // ENOTRECOVERABLE: what a forked child has of its parent's images is dead
};

// What to do next. SETTING is the option of the library that it is about, with a value where one
// helps ("overwrite", "key-budget time=20"); empty where there is none. A command line adds how
// it spells that.
struct Hint {
  std::string text;
  std::string setting;
};

// The only exception type that crosses Cairn's interfaces.
class Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message);

  // "MESSAGE: strerror(error)"; an empty message gives the system's text alone.
  static Error system(int error, std::string_view message = {});

  ErrorKind kind() const { return kind_; }
  int error_number() const { return errno_; }
  // The whole text, context first, without a final newline.
  const std::string& message() const { return message_; }
  // The system's words for error_number(): what a tool prints where it names only the cause.
  std::string cause() const;
  // Lines that are printed below the message.
  const std::vector<Hint>& hints() const { return hints_; }

  // An error of the same kind that says TEXT; this one's words become hints.
  Error behind(std::string text) const;

  // Prepends "PREFIX: ".
  Error& context(std::string_view prefix) &;
  Error&& context(std::string_view prefix) && { return std::move(context(prefix)); }
  Error& hint(std::string text, std::string setting = {}) &;
  Error&& hint(std::string text, std::string setting = {}) && {
    return std::move(hint(std::move(text), std::move(setting)));
  }
  Error& hint(const Hint& line) & { return hint(line.text, line.setting); }

  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorKind kind_;
  int errno_;
  std::string message_;
  std::vector<Hint> hints_;
};

// Throws an Error of the kind kInvalid.
[[noreturn]] void invalid(const std::string& message);

// The errno that stands for KIND.
int errno_of(ErrorKind kind);
// The kind that stands for a system error number.
ErrorKind kind_of(int error);

}  // namespace cairn
