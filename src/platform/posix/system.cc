#include "platform/system.h"

#include <fnmatch.h>
#include <locale.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wctype.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

#include <system_error>

#include "platform/types.h"

namespace cairn::platform {

std::string error_text(int error) {
  // These numbers are not those of every system.
  if (error == ENOMEDIUM) return "No medium found";
  if (error == EREMOTEIO) return "Remote I/O error";
  return std::generic_category().message(error);
}

uint64_t thread_cpu_nanoseconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

bool to_utc(std::time_t seconds, std::tm* parts) { return ::gmtime_r(&seconds, parts) != nullptr; }

bool to_local(std::time_t seconds, std::tm* parts) {
  return ::localtime_r(&seconds, parts) != nullptr;
}

unsigned long process_number() { return static_cast<unsigned long>(::getpid()); }

bool is_terminal(int fd) { return ::isatty(fd) != 0; }

std::optional<unsigned> terminal_columns(int fd) {
  winsize size = {};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0) return std::nullopt;
  return size.ws_col;
}

bool matches_pattern(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

char16_t upper_case(char16_t unit) {
  static const locale_t unicode = [] {
    const locale_t found = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    return found != nullptr ? found : ::newlocale(LC_CTYPE_MASK, "en_US.UTF-8", nullptr);
  }();
  if (unicode == nullptr) return unit;
  const wint_t upper = ::towupper_l(static_cast<wint_t>(unit), unicode);
  return upper < 0x10000 ? static_cast<char16_t>(upper) : unit;
}

}  // namespace cairn::platform
