// src/cli/io/elsewhere: the lines of the shell where libedit is not: those of the terminal itself.
#include <iostream>

#include "cli/io/shell.h"

namespace cairn::cli::io {

struct LineSource::Editor {};

LineSource::LineSource(std::string prompt) : prompt_(std::move(prompt)) {}

LineSource::~LineSource() = default;

std::optional<std::string> LineSource::next() {
  print(prompt_);
  finish_output();
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

}  // namespace cairn::cli::io
