#include <dlfcn.h>
#include <editline/readline.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "cli/io/shell.h"

namespace cairn::cli::io {
namespace {

// What is used of libedit, which is loaded when somebody sits at a terminal: every other start does
// without it.
struct Library {
  // False when it is not installed or lacks something.
  bool load();

  decltype(&::readline) readline = nullptr;
  decltype(&::add_history) add_history = nullptr;
  decltype(&::using_history) using_history = nullptr;
  decltype(&::stifle_history) stifle_history = nullptr;
  decltype(&::rl_deprep_terminal) deprep_terminal = nullptr;
  decltype(&::rl_completion_matches) completion_matches = nullptr;
  decltype(&::rl_catch_signals) catch_signals = nullptr;
  decltype(&::rl_attempted_completion_function) attempted_completion_function = nullptr;
};

bool Library::load() {
  void* handle = ::dlopen("libedit.so.2", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return false;
  const auto find = [&](const char* name, auto* place) {
    *place = reinterpret_cast<std::remove_pointer_t<decltype(place)>>(::dlsym(handle, name));
    return *place != nullptr;
  };
  return find("readline", &readline) && find("add_history", &add_history) &&
         find("using_history", &using_history) && find("stifle_history", &stifle_history) &&
         find("rl_deprep_terminal", &deprep_terminal) &&
         find("rl_completion_matches", &completion_matches) &&
         find("rl_catch_signals", &catch_signals) &&
         find("rl_attempted_completion_function", &attempted_completion_function);
}

Library library;

// libedit asks for one match after the other.
char* next_command(const char* begin, int state) {
  static size_t at = 0;
  if (state == 0) at = 0;
  while (at < commands().size()) {
    const std::string name(commands()[at++].name);
    if (name.starts_with(begin)) return ::strdup(name.c_str());
  }
  return nullptr;
}

// Words after the first one are completed as file names.
char** complete(const char* text, int start, int) {
  if (start != 0) return nullptr;
  return library.completion_matches(text, next_command);
}

}  // namespace

// Made on a terminal only.
struct LineSource::Editor {
  Editor() {
    // An interrupt gives the terminal back as it was before it ends the program.
    *library.catch_signals = 1;
    *library.attempted_completion_function = complete;
    library.using_history();
    library.stifle_history(1000);
  }
  ~Editor() { library.deprep_terminal(); }
};

LineSource::LineSource(std::string prompt) : prompt_(std::move(prompt)) {
  if (::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO) && library.load())
    editor_ = std::make_unique<Editor>();
}

LineSource::~LineSource() = default;

std::optional<std::string> LineSource::next() {
  if (editor_) {
    char* typed = library.readline(prompt_.c_str());
    if (typed == nullptr) {
      print("\n");
      return std::nullopt;
    }
    std::string line = typed;
    ::free(typed);
    if (!line.empty()) library.add_history(line.c_str());
    return line;
  }
  print(prompt_);
  finish_output();
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

}  // namespace cairn::cli::io
