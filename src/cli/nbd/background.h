#pragma once

namespace cairn::cli {

// Going to the background: the parent stays until the child is ready, shows what the child had to
// say before that, and ends with 1 if there was anything.
class Background {
 public:
  enum class Role { kParent, kChild };

  // Forks. Only while the process has one thread. Throws what the system says.
  Role begin();
  // In the parent: the exit code.
  int wait();
  // In the child (elsewhere nothing happens): lets the parent end and cuts the ties with its
  // terminal; errors are still shown when VERBOSE.
  void ready(bool verbose);

 private:
  int pipe_ = -1;
  int old_error_ = -1;
};

}  // namespace cairn::cli
