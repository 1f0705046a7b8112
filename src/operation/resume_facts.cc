#include "operation/resume_facts.h"

#include <fmt/core.h>

#include <algorithm>

#include "block/capabilities/identified.h"
#include "block/driver.h"
#include "crypto/digest.h"

namespace cairn::operation {
namespace {

using Facts = std::vector<CopyRecord::Fact>;

void add_node(Facts& facts, const std::string& label, const Node& node) {
  facts.push_back({"the format of " + label, std::string(node.driver().name())});
  facts.push_back({"the length of " + label, std::to_string(node.length())});
  const Identity identity = identity_of(node);
  if (!identity.object.empty()) facts.push_back({"the file of " + label, identity.object});
  if (!identity.state.empty()) facts.push_back({"the state of " + label, identity.state});
  // The names of what has a structure, and of the files of this host, may change.
  if (node.children().empty() && identity.object.empty() && identity.state.empty())
    facts.push_back({"the digest of the name of " + label, name_digest(node.filename())});
  for (const Child& child : node.children())
    add_node(facts, label + "'s " + child.name, *child.node);
}

std::string value_in(const Facts& facts, const std::string& what) {
  for (const CopyRecord::Fact& fact : facts)
    if (fact.what == what) return fact.value;
  return "not given";
}

bool tells_of_changes(const Node& node) {
  const auto& children = node.children();
  if (children.empty()) return !identity_of(node).state.empty();
  return std::all_of(children.begin(), children.end(),
                     [](const Child& child) { return tells_of_changes(*child.node); });
}

}  // namespace

bool tell_of_changes(const std::vector<NodePtr>& sources) {
  return std::all_of(sources.begin(), sources.end(),
                     [](const NodePtr& source) { return tells_of_changes(*source); });
}

Error no_place_for_journal(const std::string& target) {
  return Error(ErrorKind::kInvalid, "No journal can be kept next to '" + target + "'")
      .hint("Name a file on this machine for it.", "resume=FILE");
}

void require_same(const CopyRecord& record, const Facts& now, const std::string& journal,
                  bool create) {
  const auto differs = [&](const std::string& what) {
    throw Error(ErrorKind::kInvalid,
                fmt::format("The journal '{}' does not fit: {} was {} and is {} now", journal, what,
                            value_in(record.facts, what), value_in(now, what)))
        .hint(create ? "Give the command as it was to continue, or start again."
                     : "Give the command as it was to continue, or remove the journal to start "
                       "again.",
              create ? "overwrite" : "");
  };
  for (const CopyRecord::Fact& fact : now)
    if (value_in(record.facts, fact.what) != fact.value) differs(fact.what);
  for (const CopyRecord::Fact& fact : record.facts)
    if (value_in(now, fact.what) != fact.value) differs(fact.what);
}

std::string name_digest(const std::string& name) {
  Digest digest("sha256");
  digest.add(bytes_of(name));
  return digest.finish();
}

Facts facts_of(const ConversionOptions& options) {
  Facts facts;
  const auto flag = [&](const char* name, bool given) {
    if (given) facts.push_back({name, "given"});
  };
  facts.push_back({"the number of sources", std::to_string(options.sources.size())});
  for (size_t i = 0; i < options.sources.size(); ++i) {
    const OpenRequest& source = options.sources[i];
    if (!source.format.empty())
      facts.push_back({"-f of source " + std::to_string(i + 1), source.format});
    std::string text;
    for (const auto& [key, value] : source.options.items())
      text += key + "=" + source.options.string(key).value_or("") + "\n";
    if (!text.empty())
      facts.push_back(
          {"the digest of the options of source " + std::to_string(i + 1), name_digest(text)});
  }
  facts.push_back({"-O", options.format});
  for (const auto& [key, value] : options.create_options.items())
    facts.push_back({"-o " + key, options.create_options.string(key).value_or("")});
  flag("-c", options.job.compress);
  flag("-n", !options.create);
  flag("target-is-zero", options.given_zero);
  flag("salvage", options.job.salvage);
  facts.push_back({"-S", std::to_string(options.job.sparse_bytes)});
  if (options.snapshot) facts.push_back({"-l", *options.snapshot});
  if (options.level) facts.push_back({"-o compression_level", std::to_string(*options.level)});
  if (options.preset != nullptr) facts.push_back({"for", std::string(options.preset->name)});
  return facts;
}

Facts facts_of(const std::vector<NodePtr>& sources) {
  Facts facts;
  for (size_t i = 0; i < sources.size(); ++i)
    add_node(facts, "source " + std::to_string(i + 1), *sources[i]);
  return facts;
}

}  // namespace cairn::operation
