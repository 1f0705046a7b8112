#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cairn::cli {

// A wrong command line: the message, and below it where help is found.
struct UsageError {
  std::string message;
  bool hint = true;
};

// One option of a verb. ID is the short letter, or a number from 256 on for long options only.
struct Flag {
  int id = 0;
  const char* long_name = nullptr;   // null: none
  const char* value_name = nullptr;  // null: takes no value; "[=NAME]": may take one (long only)
  const char* help = "";
};

// How long options are named: in whole, or shortened while they stay unique, as getopt has it.
enum class LongNames { kWhole, kShortened };

// What was given, in its order. Options and words may be mixed; "--" ends the options.
class Arguments {
 public:
  // ARGV[0] is the verb. Throws UsageError.
  static Arguments parse(const std::vector<Flag>& flags, int argc, char** argv,
                         LongNames names = LongNames::kShortened);

  bool has(int id) const;
  // The last value given.
  std::optional<std::string> value(int id) const;
  std::string value_or(int id, std::string_view otherwise) const;
  std::vector<std::string> values(int id) const;
  // All options, in the order of the command line.
  const std::vector<std::pair<int, std::string>>& given() const { return given_; }
  const std::vector<std::string>& words() const { return words_; }
  // Whether word INDEX was the last thing on the line.
  bool last_is_word() const { return last_is_word_; }
  // For verbs whose last word may begin with a dash ("resize disk -1G"): takes it as a word.
  void add_word(std::string word) { words_.push_back(std::move(word)); }
  // Puts MEANING for WORD where it is the value of one of FLAGS whose value is called VALUE_NAME.
  void translate(const std::vector<Flag>& flags, std::string_view value_name, std::string_view word,
                 std::string_view meaning);

 private:
  std::vector<std::pair<int, std::string>> given_;
  std::vector<std::string> words_;
  bool last_is_word_ = false;
};

}  // namespace cairn::cli
