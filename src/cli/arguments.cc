#include "cli/arguments.h"

#include <getopt.h>

#include <algorithm>

#include "base/similar.h"

namespace cairn::cli {
namespace {

// TOKEN as it stands on the command line: "--name", "--name=value" or "-xyz".
UsageError unrecognized(const std::vector<Flag>& flags, const std::string& token) {
  std::string message = "unrecognized option '" + token + "'";
  if (!token.starts_with("--")) return {message};
  std::vector<std::string> known;
  for (const Flag& flag : flags)
    if (flag.long_name != nullptr) known.push_back("--" + std::string(flag.long_name));
  return {message + did_you_mean(token.substr(0, token.find('=')), known)};
}

int takes_value(const Flag& flag) {
  if (flag.value_name == nullptr) return no_argument;
  return *flag.value_name == '[' ? optional_argument : required_argument;
}

}  // namespace

Arguments Arguments::parse(const std::vector<Flag>& flags, int argc, char** argv, LongNames names) {
  // A leading '-' makes getopt hand out words in their place as option 1; ':' distinguishes a
  // missing value apart from an unknown option.
  std::string letters = "-:";
  std::vector<option> longs;
  for (const Flag& flag : flags) {
    if (flag.id < 256) {
      letters.push_back(static_cast<char>(flag.id));
      if (flag.value_name != nullptr) letters.push_back(':');
    }
    if (flag.long_name != nullptr)
      longs.push_back({flag.long_name, takes_value(flag), nullptr, flag.id});
  }
  longs.push_back({nullptr, 0, nullptr, 0});
  Arguments result;
  optind = 0;
  opterr = 0;
  while (true) {
    const int before = optind == 0 ? 1 : optind;
    int index = -1;
    const int got = getopt_long(argc, argv, letters.c_str(), longs.data(), &index);
    if (got == -1) break;
    const std::string token = before < argc ? argv[before] : "";
    if (names == LongNames::kWhole &&
        (got == '?' ||
         (index >= 0 && token.substr(0, token.find('=')) !=
                            "--" + std::string(longs[static_cast<size_t>(index)].name))))
      throw unrecognized(flags, token);
    if (got == ':') throw UsageError{"missing argument for option '" + token + "'"};
    if (got == '?') throw UsageError{"unrecognized option '" + token + "'"};
    result.last_is_word_ = got == 1;
    if (got == 1)
      result.words_.emplace_back(optarg);
    else
      result.given_.emplace_back(got, optarg != nullptr ? optarg : "");
  }
  for (int i = optind; i < argc; ++i) {
    result.words_.emplace_back(argv[i]);
    result.last_is_word_ = true;
  }
  return result;
}

bool Arguments::has(int id) const {
  for (const auto& [given, text] : given_)
    if (given == id) return true;
  return false;
}

std::optional<std::string> Arguments::value(int id) const {
  std::optional<std::string> last;
  for (const auto& [given, text] : given_)
    if (given == id) last = text;
  return last;
}

std::string Arguments::value_or(int id, std::string_view otherwise) const {
  return value(id).value_or(std::string(otherwise));
}

std::vector<std::string> Arguments::values(int id) const {
  std::vector<std::string> result;
  for (const auto& [given, text] : given_)
    if (given == id) result.push_back(text);
  return result;
}

void Arguments::translate(const std::vector<Flag>& flags, std::string_view value_name,
                          std::string_view word, std::string_view meaning) {
  const auto takes = [&](int id) {
    return std::any_of(flags.begin(), flags.end(), [&](const Flag& flag) {
      return flag.id == id && flag.value_name != nullptr && flag.value_name == value_name;
    });
  };
  for (auto& [id, text] : given_)
    if (text == word && takes(id)) text = meaning;
}

}  // namespace cairn::cli
