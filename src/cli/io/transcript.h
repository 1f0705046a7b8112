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
  void end(bool succeeded);
  void text(std::string_view text);
  void outcome(const Outcome& outcome);
  // The member "commands" of the object.
  Value commands() const;

  // The command that has begun last, for what it has only started.
  static size_t command();
  // While one exists, what is printed belongs to COMMAND. Not over a co_await.
  class Belonging {
   public:
    explicit Belonging(size_t command);
    ~Belonging();
    Belonging(const Belonging&) = delete;

   private:
    size_t before_ = 0;
  };

 private:
  struct Entry {
    std::string line;
    bool succeeded = false;
    std::string output;
    Value results = Value::array();
  };
  std::vector<Entry> entries_;
  size_t at_ = 0;  // the one that is added to
};

}  // namespace cairn::cli::io
