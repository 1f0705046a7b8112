#include "daemon/journal/job_disks.h"

#include <algorithm>
#include <map>
#include <set>

#include "block/driver.h"
#include "block/graph/recipes.h"
#include "daemon/commands/commands.h"
#include "daemon/handover/fields.h"
#include "job/live/job_filter.h"
#include "platform/file.h"

namespace cairn::daemon {
namespace {

// For how long the daemon may have written to files after it wrote the time into the journal last:
// it does that each second, when the machine lets it.
constexpr int64_t kSlackSeconds = 5;

using Nodes = std::set<const Node*>;

bool is_made(const std::string& name) { return name.starts_with('#'); }

void add_below(const Node& node, Nodes& nodes, Nodes& seen) {
  if (!seen.insert(&node).second) return;
  if (dynamic_cast<const live::JobFilter*>(&node) == nullptr) nodes.insert(&node);
  for (const Child& child : node.children()) add_below(*child.node, nodes, seen);
}

std::vector<JournalFile> files_of(const Nodes& nodes) {
  std::map<std::string, uint64_t> found;
  for (const Node* node : nodes) {
    if (node->driver().name() != "file" || !node->children().empty()) continue;
    const std::string path = platform::canonical(node->filename());
    const auto status = path.empty() ? std::nullopt : platform::status(path);
    if (status && status->is_regular()) found.emplace(path, status->number);
  }
  std::vector<JournalFile> files;
  for (const auto& [path, number] : found) files.push_back({.path = path, .number = number});
  return files;
}

bool same_files(const std::vector<JournalFile>& a, const std::vector<JournalFile>& b) {
  const auto numbers = [](const std::vector<JournalFile>& files) {
    std::set<uint64_t> all;
    for (const JournalFile& file : files) all.insert(file.number);
    return all;
  };
  return numbers(a) == numbers(b);
}

// A name that was made is one of another node now.
Value with_new_names(const Value& fields, const std::map<std::string, std::string>& names) {
  Value options = Value::object();
  for (const auto& [key, value] : *member_of(fields, "options").get_if<Value::Object>()) {
    const auto* text = value.get_if<std::string>();
    const auto renamed = text == nullptr ? names.end() : names.find(*text);
    options.set(key, renamed == names.end() ? value : Value(renamed->second));
  }
  Value result = fields;
  result.set("options", std::move(options));
  return result;
}

// The recipes that have to be carried out: of nodes that are missing, and of those below them, or
// that the job names itself, which have no name of their own.
std::set<std::string> missing(const Graph& graph, const JournalJob& job) {
  std::set<std::string> wanted;
  std::set<std::string> mentioned{text_of(job.arguments, "target")};
  for (auto recipe = job.recipes.rbegin(); recipe != job.recipes.rend(); ++recipe) {
    const std::string name = recipe_in(*recipe).name;
    const bool needed = is_made(name) ? mentioned.contains(name) : graph.find(name) == nullptr;
    if (!needed) continue;
    wanted.insert(name);
    for (const auto& [key, value] : *member_of(*recipe, "options").get_if<Value::Object>())
      if (const auto* text = value.get_if<std::string>()) mentioned.insert(*text);
  }
  return wanted;
}

}  // namespace

void capture_disks(Graph& graph, JournalJob& job) {
  Nodes nodes, seen;
  for (const RootPtr& root : graph.roots())
    if (root->use().job == job.id) add_below(*root->node(), nodes, seen);
  job.nodes.clear();
  job.recipes.clear();
  for (const Node* node : nodes)
    if (!is_made(node->node_name())) job.nodes.push_back(node->node_name());
  std::sort(job.nodes.begin(), job.nodes.end());
  for (const NodeRecipe& recipe : node_recipes(graph, nodes))
    job.recipes.push_back(fields_of(recipe));
  job.files = files_of(nodes);
}

Task<JournalJob> restore_disks(Graph& graph, JournalJob job) {
  const std::set<std::string> wanted = missing(graph, job);
  std::map<std::string, std::string> names;
  for (const Value& fields : job.recipes) {
    NodeRecipe recipe = recipe_in(with_new_names(fields, names));
    if (!wanted.contains(recipe.name)) continue;
    if (is_made(recipe.name)) {
      const std::string before = recipe.name;
      recipe.name = graph.context().next_node_name();
      names[before] = recipe.name;
    }
    co_await graph.open_again(std::move(recipe));
  }
  // The target of drive-mirror may have a name that was made.
  if (const auto target = names.find(text_of(job.arguments, "target")); target != names.end()) {
    job.arguments.set("target", target->second);
    job.nodes.push_back(target->second);
  }
  co_return job;
}

void check_disks(const Graph& graph, const JournalJob& job) {
  Nodes nodes, seen;
  for (const std::string& name : job.nodes) add_below(*graph.get(name), nodes, seen);
  if (!same_files(files_of(nodes), job.files))
    throw Error(ErrorKind::kInvalid, "its nodes are on other files than when it began");
}

DisksFound look_at_files(const JournalJob& job, int64_t seen) {
  DisksFound found;
  for (const JournalFile& file : job.files) {
    const auto status = platform::status(file.path);
    if (!status)
      found.other = "'" + file.path + "' is not there any more";
    else if (status->number != file.number)
      found.other = "'" + file.path + "' is another file than before";
    else if (status->modified > seen && status->modified - seen > kSlackSeconds)
      found.changed = "'" + file.path + "' was changed after the daemon had ended";
  }
  return found;
}

}  // namespace cairn::daemon
