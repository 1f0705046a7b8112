#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace cairn::platform {

// The terminal of the person who has started the program, whatever its standard input is. What is
// typed is not shown until the object goes; there is one such object at a time.
class SilentTerminal {
 public:
  SilentTerminal();
  ~SilentTerminal();
  SilentTerminal(const SilentTerminal&) = delete;

  // False: the program has none.
  bool ready() const { return ready_; }
  void say(std::string_view text) const;
  // What is typed up to the end of a line, in UTF-8; no more than about MOST bytes of it. Nothing
  // where an interrupt came and STOP says that it ends the program.
  std::optional<std::string> read_line(size_t most, const std::function<bool()>& stop) const;

 private:
  int fd_ = -1;
  bool ready_ = false;
};

// For who ends the program at once, also in a signal handler: typing is shown again.
void restore_terminal() noexcept;

}  // namespace cairn::platform
