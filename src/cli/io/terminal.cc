#include <editline/readline.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "cli/io/shell.h"

namespace cairn::cli::io {
namespace {

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

// Words behind the first one are completed as file names.
char** complete(const char* text, int start, int) {
  if (start != 0) return nullptr;
  return ::rl_completion_matches(text, next_command);
}

}  // namespace

// Made on a terminal only.
struct LineSource::Editor {
  Editor() {
    // An interrupt gives the terminal back as it was before it ends the program.
    ::rl_catch_signals = 1;
    ::rl_attempted_completion_function = complete;
    ::using_history();
    ::stifle_history(1000);
  }
  ~Editor() { ::rl_deprep_terminal(); }
};

LineSource::LineSource(std::string prompt) : prompt_(std::move(prompt)) {
  if (::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO)) editor_ = std::make_unique<Editor>();
}

LineSource::~LineSource() = default;

std::optional<std::string> LineSource::next() {
  if (editor_) {
    char* typed = ::readline(prompt_.c_str());
    if (typed == nullptr) {
      print("\n");
      return std::nullopt;
    }
    std::string line = typed;
    ::free(typed);
    if (!line.empty()) ::add_history(line.c_str());
    return line;
  }
  print(prompt_);
  finish_output();
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

}  // namespace cairn::cli::io
