#pragma once

#include <string>
#include <string_view>

#include "cli/io/shell.h"

namespace cairn::cli::io {

// What the commands of a shell printed, kept for --output json in place of standard output. While
// one exists, print() and print_outcome() of this directory add to it. One at a time.
class Transcript {
 public:
  Transcript();
  ~Transcript();
  Transcript(const Transcript&) = delete;
  static Transcript* current();

  void begin(const std::string& line);
  // What follows until begin() still belongs to the command: results of requests that it sent.
  void end(bool succeeded);
  void text(std::string_view text);
  void outcome(const Outcome& outcome);
  // The member "commands" of the object.
  Value commands() const;

 private:
  struct Entry {
    std::string line;
    bool succeeded = false;
    std::string output;
    Value results = Value::array();
  };
  std::vector<Entry> entries_;
};

}  // namespace cairn::cli::io
