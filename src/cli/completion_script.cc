#include "cli/completion_script.h"

#include <algorithm>

#include "block/driver.h"
#include "cli/session.h"

namespace cairn::cli {
namespace {

using Strings = std::vector<std::string>;

// bash's own way of completing; zsh has the same after this.
constexpr std::string_view kZshHead = R"(autoload -Uz compinit bashcompinit
compinit
bashcompinit
)";

// What the daemon at the socket $1 says to `ctl $2`, by name. One that does not answer is not
// waited for.
constexpr std::string_view kBegin = R"(_cairn_known() {
  timeout 1 "${COMP_WORDS[0]}" ctl --socket "$1" "$2" 2>/dev/null | awk 'NR > 1 { print $1 }'
}
_cairn() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
  local verb= options= valued= choices= phrases= said= socket= list= i one phrase
  COMPREPLY=()
  # "=" is a word of its own.
  if [[ $word == = ]]; then
    word=
  elif [[ $before == = ]]; then
    before=${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ ${COMP_WORDS[i]} != -* ]]; then
      verb=${COMP_WORDS[i]}
      break
    fi
  done
  case $verb in
)";

constexpr std::string_view kEnd = R"(  esac
  if [[ " $valued " == *" $before "* ]]; then
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
    return
  fi
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$word"))
    return
  fi
  # The words that came so far, without options and their values.
  for ((i++; i < COMP_CWORD; i++)); do
    one=${COMP_WORDS[i]}
    if [[ " $valued " == *" $one "* ]]; then
      ((i++))
      [[ ${COMP_WORDS[i]} == = ]] && ((i++))
      [[ $one == --socket ]] && socket=${COMP_WORDS[i]}
    elif [[ $one != -* ]]; then
      said+=$one/
    fi
  done
  for phrase in $phrases; do
    if [[ $phrase == "$said"* ]]; then
      one=${phrase#"$said"}
      one=${one%%/*}
      [[ " $list " == *" $one "* ]] || list+=" $one"
    fi
  done
  case $verb/$said in
    ctl/job/*/) list=$(_cairn_known "$socket" jobs) ;;
    ctl/remove/export/) list=$(_cairn_known "$socket" exports) ;;
    ctl/remove/node/ | ctl/resize/ | ctl/snapshot/) list=$(_cairn_known "$socket" nodes) ;;
  esac
  COMPREPLY=($(compgen -W "$list" -- "$word"))
}
complete -o default -F _cairn cairn
)";

std::string joined(const Strings& words, std::string_view between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : std::string(between)) + word;
  return text;
}

Strings split_at(std::string_view text, std::string_view between) {
  Strings parts;
  while (true) {
    const size_t end = text.find(between);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + between.size());
  }
}

// Words that are typed as they stand; the others are in capitals, or options.
bool is_literal(std::string_view word) {
  return !word.empty() && std::all_of(word.begin(), word.end(),
                                      [](char c) { return (c >= 'a' && c <= 'z') || c == '|'; });
}

// "add node|export OPTIONS" is add/node and add/export. Optional words are not looked at.
Strings phrases_of(std::string_view synopsis) {
  Strings phrases;
  if (synopsis.find('[') != std::string_view::npos) return phrases;
  for (const std::string& part : split_at(synopsis, " | ")) {
    Strings begun{""};
    bool value = false;  // of the option before it
    for (const std::string& word : split_at(part, " ")) {
      const bool skipped = value || word.starts_with('-');
      value = word.starts_with('-');
      if (skipped) continue;
      if (!is_literal(word)) break;
      Strings longer;
      for (const std::string& phrase : begun)
        for (const std::string& choice : split_at(word, "|"))
          longer.push_back(phrase + choice + "/");
      begun = std::move(longer);
    }
    if (begun.front().empty()) continue;
    phrases.insert(phrases.end(), begun.begin(), begun.end());
  }
  return phrases;
}

Strings names_of_flag(const Flag& flag) {
  Strings names;
  if (flag.id < 256) names.push_back(std::string("-") + static_cast<char>(flag.id));
  if (flag.long_name != nullptr) names.push_back(std::string("--") + flag.long_name);
  return names;
}

// What is offered for the value of FLAG; nothing: names of files.
Strings choices_of(const Flag& flag, const Registry& registry) {
  const std::string_view name = flag.value_name;
  if (name == "FMT") {
    Strings formats;
    for (const Driver* driver : registry.all())
      if (driver->kind() == DriverKind::kFormat && (flag.id != 'O' || driver->abilities().create))
        formats.emplace_back(driver->name());
    return formats;
  }
  if (is_literal(name) && name.find('|') != std::string_view::npos) return split_at(name, "|");
  return {};
}

// The branch of the script for one verb.
std::string branch_of(std::string_view verb, std::string_view synopsis,
                      const std::vector<Flag>& flags, const Registry& registry) {
  Strings options, valued;
  std::string choices;
  for (const Flag& flag : flags) {
    const Strings names = names_of_flag(flag);
    options.insert(options.end(), names.begin(), names.end());
    // "[=VALUE]" belongs to the same word.
    if (flag.value_name == nullptr || *flag.value_name == '[') continue;
    valued.insert(valued.end(), names.begin(), names.end());
    const Strings offered = choices_of(flag, registry);
    if (!offered.empty())
      choices +=
          "        " + joined(names, " | ") + ") choices='" + joined(offered, " ") + "' ;;\n";
  }
  std::string text = "    " + std::string(verb) + ")\n      options='" + joined(options, " ") +
                     "'\n      valued='" + joined(valued, " ") + "'\n";
  const Strings phrases = phrases_of(synopsis);
  if (!phrases.empty()) text += "      phrases='" + joined(phrases, " ") + "'\n";
  if (!choices.empty()) text += "      case $before in\n" + choices + "      esac\n";
  return text + "      ;;\n";
}

}  // namespace

std::string completion_script(const Registry& registry, Shell shell) {
  Strings names;
  std::string branches;
  for (const Verb& verb : verbs()) {
    names.emplace_back(verb.name);
    branches += branch_of(verb.name, verb.synopsis, flags_of(verb, true), registry);
  }
  for (const Tool& tool : tools()) {
    names.emplace_back(tool.verb);
    branches += branch_of(tool.verb, tool.synopsis, flags_of(tool), registry);
  }
  const std::string all = joined(names, " ");
  branches += "    help) phrases='" + all + "' ;;\n";
  branches += "    '') phrases='" + all + " help' options='--help --version' ;;\n";
  return (shell == Shell::kZsh ? std::string(kZshHead) : std::string()) + std::string(kBegin) +
         branches + std::string(kEnd);
}

}  // namespace cairn::cli
