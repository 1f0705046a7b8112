#include "net/authz.h"

#include <fmt/core.h>

#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "net/tls_credentials.h"
#include "platform/file.h"
#include "platform/system.h"

namespace cairn {
namespace {

struct Rule {
  std::string match;
  bool allow = false;
  bool glob = false;
};

struct Rules {
  std::vector<Rule> rules;
  bool allow = false;

  bool allows(std::string_view identity) const {
    const std::string name(identity);
    for (const Rule& rule : rules)
      if (rule.glob ? platform::matches_pattern(rule.match, name) : rule.match == name)
        return rule.allow;
    return allow;
  }
};

bool parse_policy(const std::string& text) {
  if (text == "allow") return true;
  if (text == "deny") return false;
  throw Error(ErrorKind::kInvalid, "Parameter 'policy' does not accept value '" + text + "'");
}

// "policy" and "rules.N.match", "rules.N.policy", "rules.N.format".
Rules parse_rules(const Options& options) {
  Rules rules;
  rules.allow = parse_policy(options.string("policy").value_or("deny"));
  for (unsigned i = 0;; ++i) {
    const std::string key = fmt::format("rules.{}", i);
    if (!options.has_tree(key)) break;
    Rule rule;
    const auto match = options.string(key + ".match");
    const auto policy = options.string(key + ".policy");
    if (!match || !policy)
      throw Error(ErrorKind::kInvalid, "Parameter 'match' or 'policy' is missing in " + key);
    const std::string format = options.string(key + ".format").value_or("exact");
    if (format != "exact" && format != "glob")
      throw Error(ErrorKind::kInvalid, "Parameter 'format' does not accept value '" + format + "'");
    rule.match = *match;
    rule.allow = parse_policy(*policy);
    rule.glob = format == "glob";
    rules.rules.push_back(rule);
  }
  return rules;
}

void refuse_unknown(std::string_view type, const Options& options) {
  options.mark_used("id");
  if (const auto unknown = options.unused(); !unknown.empty())
    throw Error(ErrorKind::kInvalid,
                fmt::format("Property '{}.{}' not found", type, unknown.front()));
}

class Simple : public Authorization {
 public:
  explicit Simple(std::string identity) : identity_(std::move(identity)) {}
  bool allows(std::string_view identity) const override { return identity == identity_; }

 private:
  std::string identity_;
};

class List : public Authorization {
 public:
  explicit List(Rules rules) : rules_(std::move(rules)) {}
  bool allows(std::string_view identity) const override { return rules_.allows(identity); }

 private:
  Rules rules_;
};

class ListFile : public Authorization {
 public:
  ListFile(std::string path, bool refresh) : path_(std::move(path)), refresh_(refresh) {
    rules_ = read();
  }
  bool allows(std::string_view identity) const override {
    std::lock_guard lock(mutex_);
    if (refresh_ && stamp() != stamp_) {
      // A file that became unreadable or wrong lets no client in.
      try {
        rules_ = read();
      } catch (const Error&) {
        rules_ = {};
      }
    }
    return rules_.allows(identity);
  }

 private:
  using Stamp = std::pair<uint64_t, uint64_t>;
  Stamp stamp() const {
    const auto status = platform::status(path_);
    if (!status) return {};
    return {static_cast<uint64_t>(status->modified) * 1000000000 + status->modified_nanoseconds,
            status->number};
  }
  Rules read() const {
    stamp_ = stamp();
    const Options options = Options::from_value(Value::parse(detail::read_credential_file(path_)));
    Rules rules = parse_rules(options);
    refuse_unknown("authz-list-file", options);
    return rules;
  }

  std::string path_;
  bool refresh_;
  mutable std::mutex mutex_;
  mutable Stamp stamp_;
  mutable Rules rules_;
};

std::shared_ptr<Object> make_authorization(std::string_view type, const Options& properties,
                                           const Objects&) {
  std::shared_ptr<Authorization> made;
  if (type == "authz-simple") {
    const auto identity = properties.string("identity");
    if (!identity) throw Error(ErrorKind::kInvalid, "identity property must be set");
    made = std::make_shared<Simple>(*identity);
  } else if (type == "authz-list") {
    made = std::make_shared<List>(parse_rules(properties));
  } else {
    const auto path = properties.string("filename");
    if (!path) throw Error(ErrorKind::kInvalid, "filename not provided");
    const bool refresh = properties.boolean("refresh").value_or(true);
    made = std::make_shared<ListFile>(*path, refresh);
  }
  refuse_unknown(type, properties);
  return made;
}

}  // namespace

const std::vector<ObjectType>& authorization_types() {
  static const std::vector<ObjectType> types = {
      {"authz-list",
       {{"policy", "QAuthZListPolicy"}, {"rules", "QAuthZListRule"}},
       make_authorization},
      {"authz-list-file", {{"filename", "string"}, {"refresh", "bool"}}, make_authorization},
      {"authz-simple", {{"identity", "string"}}, make_authorization},
  };
  return types;
}

}  // namespace cairn
