#include "cli/configuration.h"

#include <algorithm>
#include <cstddef>

#include "operation/configuration.h"

namespace cairn::cli {
namespace {

// Whether the value of the option WORD is the next word, which may look like an option then.
bool takes_next_word(const std::vector<Flag>& flags, std::string_view word) {
  if (word.starts_with("--"))
    return word.size() > 2 && std::any_of(flags.begin(), flags.end(), [&](const Flag& flag) {
             return flag.value_name != nullptr && flag.long_name != nullptr &&
                    std::string_view(flag.long_name).starts_with(word.substr(2));
           });
  for (size_t i = 1; i < word.size(); ++i)
    for (const Flag& flag : flags)
      if (flag.id == word[i] && flag.value_name != nullptr) return i + 1 == word.size();
  return false;
}

}  // namespace

std::string_view configuration_option(std::string_view word) {
  if (!word.starts_with('-')) return {};
  word.remove_prefix(word.starts_with("--") ? 2 : 1);
  return word == "readconfig" || word == "iscsi" ? word : std::string_view();
}

void configure(const Session& session, std::string_view option, const std::string& value) {
  if (option == "iscsi") return operation::add_iscsi_section(session.context, value);
  try {
    operation::read_configuration(session.context, value, session.context.tell);
  } catch (Error& error) {
    throw error.context("-readconfig " + value);
  }
}

void take_configuration(const Session& session, const std::vector<Flag>& flags,
                        std::vector<char*>& words) {
  for (size_t i = 1; i < words.size();) {
    const std::string_view word = words[i];
    if (word == "--") return;
    const std::string_view option = configuration_option(word);
    if (option.empty()) {
      i += word.starts_with('-') && takes_next_word(flags, word) ? 2 : 1;
      continue;
    }
    if (i + 1 == words.size())
      throw UsageError{"missing argument for option '" + std::string(word) + "'"};
    configure(session, option, words[i + 1]);
    const auto at = words.begin() + static_cast<std::ptrdiff_t>(i);
    words.erase(at, at + 2);
  }
}

}  // namespace cairn::cli
