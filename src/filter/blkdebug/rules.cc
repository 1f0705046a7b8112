#include "filter/blkdebug/rules.h"

#include <algorithm>
#include <set>

#include "base/error.h"

namespace cairn::blkdebug {
namespace {

DebugEvent event_of(const Options& options) {
  const auto name = options.string("event");
  if (!name) invalid("Missing event name for rule");
  const auto event = parse_debug_event(*name);
  if (!event) invalid("invalid parameter value: " + *name);
  return *event;
}

unsigned types_of(const std::string& name) {
  static constexpr std::pair<std::string_view, unsigned> kTypes[] = {
      {"read", kRead},       {"write", kWrite}, {"write-zeroes", kWriteZeroes},
      {"discard", kDiscard}, {"flush", kFlush}, {"block-status", kBlockStatus}};
  for (const auto& [known, type] : kTypes)
    if (known == name) return type;
  invalid("invalid parameter value: " + name);
}

void no_others(const Options& options) {
  const auto unused = options.unused();
  if (!unused.empty()) invalid("Invalid parameter '" + unused.front() + "'");
}

void add_inject(const Options& options, Rules* rules) {
  InjectError rule;
  rule.event = event_of(options);
  rule.state = options.number("state").value_or(0);
  if (const auto type = options.string("iotype")) rule.types = types_of(*type);
  const uint64_t error = options.number("errno").value_or(5);
  if (error > 4095) invalid("Parameter 'errno' expects an error number");
  rule.error = static_cast<int>(error);
  // A sector of -1 stands for any.
  if (options.has("sector") && options.string("sector") != "-1")
    rule.sector = options.number("sector");
  rule.once = options.boolean("once").value_or(false);
  // Whether the error comes at once or through the loop makes no difference here.
  options.boolean("immediately");
  no_others(options);
  rules->inject.push_back(rule);
}

void add_state(const Options& options, Rules* rules) {
  SetState rule;
  rule.event = event_of(options);
  rule.state = options.number("state").value_or(0);
  rule.new_state = options.number("new_state").value_or(0);
  no_others(options);
  rules->states.push_back(rule);
}

void add_section(const std::string& name, const Options& options, Rules* rules) {
  if (name == "inject-error") add_inject(options, rules);
  if (name == "set-state") add_state(options, rules);
}

constexpr std::string_view kBlanks = " \t\r\v\f";

std::string_view trimmed(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  return text;
}

// `[inject-error]` or `[inject-error "name"]`; the name means nothing, nor does what follows.
std::string section_of(std::string_view line) {
  const size_t bracket = line.find(']');
  if (bracket == std::string_view::npos)
    invalid("There is no option group '" + std::string(line.substr(1)) + "'");
  std::string name(line.substr(1, bracket - 1));
  if (const size_t quote = name.find(" \""); quote != std::string::npos) name.resize(quote);
  if (name != "inject-error" && name != "set-state")
    invalid("There is no option group '" + name + "'");
  return name;
}

// `key = "value"`: the key ends at a blank; what is no quoted value is an empty one.
std::pair<std::string, std::string> assignment_of(std::string_view line) {
  line = trimmed(line);
  const size_t end = std::min(line.find_first_of(kBlanks), line.size());
  std::pair<std::string, std::string> result{std::string(line.substr(0, end)), std::string()};
  line = trimmed(line.substr(end));
  if (!line.starts_with('=')) return result;
  line = trimmed(line.substr(1));
  const size_t quote = line.find('"', 1);
  if (line.starts_with('"') && quote != std::string_view::npos)
    result.second = line.substr(1, quote - 1);
  return result;
}

}  // namespace

void parse_config(std::string_view text, Rules* rules) {
  constexpr size_t kMostBytes = 1 << 20;
  if (text.size() > kMostBytes) invalid("the file of rules is longer than 1 MiB");
  std::string section;
  Options options;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (trimmed(line).empty() || line[0] == '#') continue;
    if (line[0] == '[') {
      add_section(section, options, rules);
      options = {};
      section = section_of(line);
      continue;
    }
    const auto [key, value] = assignment_of(line);
    if (section.empty()) invalid("no group defined");
    options.set(key, value);
  }
  add_section(section, options, rules);
}

void parse_options(Options& options, Rules* rules) {
  for (const char* group : {"inject-error", "set-state"}) {
    Options tree = options.take_tree(group);
    if (tree.has("event")) {  // a single rule goes without a number
      add_section(group, tree, rules);
      continue;
    }
    std::set<std::string> numbers;
    for (const auto& [key, value] : tree.items()) numbers.insert(key.substr(0, key.find('.')));
    for (const std::string& number : numbers) {
      const Options rule = tree.take_tree(number);
      add_section(group, rule, rules);
    }
    no_others(tree);
  }
}

Machine::Machine(Rules rules) : rules_(std::move(rules)), spent_(rules_.inject.size()) {
  happened(DebugEvent::kNone);
}

void Machine::happened(DebugEvent event) {
  const std::lock_guard lock(mutex_);
  bool first = true;
  for (size_t i = 0; i < rules_.inject.size(); ++i) {
    const InjectError& rule = rules_.inject[i];
    if (rule.event != event || (rule.state != 0 && rule.state != state_) || spent_[i]) continue;
    if (std::exchange(first, false)) armed_.clear();
    armed_.insert(armed_.begin(), i);
  }
  const uint64_t before = state_;
  for (const SetState& rule : rules_.states)
    if (rule.event == event && (rule.state == 0 || rule.state == before)) state_ = rule.new_state;
}

void Machine::request(IoType type, uint64_t offset, uint64_t length) {
  int error = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const size_t index : armed_) {
      const InjectError& rule = rules_.inject[index];
      if ((rule.types & type) == 0) continue;
      if (rule.sector) {
        const uint64_t begin = *rule.sector * 512;
        if (*rule.sector > UINT64_MAX / 512 || begin >= offset + length || begin + 512 <= offset)
          continue;
      }
      error = rule.error;
      if (rule.once) {
        spent_[index] = true;
        std::erase(armed_, index);
      }
      break;
    }
  }
  if (error != 0) throw Error::system(error);
}

uint64_t Machine::before_error(IoType type, uint64_t offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  for (const size_t index : armed_) {
    const InjectError& rule = rules_.inject[index];
    if ((rule.types & type) == 0 || !rule.sector || *rule.sector > UINT64_MAX / 512) continue;
    const uint64_t begin = *rule.sector * 512;
    if (begin > offset) length = std::min(length, begin - offset);
  }
  return length;
}

}  // namespace cairn::blkdebug
