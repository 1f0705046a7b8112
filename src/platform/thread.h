#pragma once

#include <memory>
#include <string>

namespace cairn::platform {

// As long as it is there, signals that somebody else sends wait, and threads that are started
// inherit that. A thread's own faults reach it.
class SignalsBlocked {
 public:
  SignalsBlocked();
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of the calling thread, for debuggers; 15 bytes at most.
void name_thread(const std::string& name);

// Calls FUNCTION in every child that is forked from now on.
void at_fork_in_child(void (*function)());

// A library that is loaded at run time, NAME as the system's loader looks for it; null: it is not
// there. It stays.
void* load_library(const char* name);
void* find_symbol(void* library, const char* name);
// Why the last of these calls failed.
std::string load_error();

}  // namespace cairn::platform
