#include <algorithm>
#include <set>

#include "base/arith.h"
#include "base/size.h"
#include "block/driver.h"
#include "cli/escape.h"
#include "cli/snapshot_table.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

// The name by which CHILD of NODE is given in options: these filters have no "file".
std::string option_of(const Node& node, const std::string& child) {
  const std::string_view driver = node.driver().name();
  if (child == "file" && driver == "blkdebug") return "image";
  if (child == "file" && driver == "blkverify") return "test";
  return child;
}

// What `info` tells about one node, its children below it.
Task<Value> describe(Node& node) {
  Value result = Value::object();
  Value children = Value::array();
  const auto& all = node.children();
  for (auto child = all.rbegin(); child != all.rend(); ++child) {
    if (child->role == ChildRole::kBacking) continue;
    Value one = Value::object();
    one.set("name", option_of(node, child->name));
    Value below = co_await describe(*child->node);
    one.set("info", std::move(below));
    children.push_back(std::move(one));
  }
  const std::string backing_format = node.backing_format();
  if (!backing_format.empty()) result.set("backing-filename-format", backing_format);
  result.set("children", std::move(children));
  Value snapshots = node.snapshots_info();
  if (const auto* list = snapshots.get_if<Value::Array>(); list != nullptr && !list->empty())
    result.set("snapshots", std::move(snapshots));
  result.set("virtual-size", align_up(node.length(), 512));
  result.set("filename", node.filename());
  if (node.limits().cluster_bytes != 0 && node.reports_cluster_bytes() &&
      node.driver().kind() != DriverKind::kProtocol)
    result.set("cluster-size", node.limits().cluster_bytes);
  result.set("format", node.driver().name());
  const auto allocated = co_await node.allocated_bytes();
  if (allocated) result.set("actual-size", *allocated);
  Value specific = node.specific_info();
  if (!specific.is_null()) {
    Value wrapped = Value::object();
    wrapped.set("type", node.specific_type());
    wrapped.set("data", std::move(specific));
    result.set("format-specific", std::move(wrapped));
  }
  const std::string backing = node.backing_name();
  if (!backing.empty()) {
    try {
      result.set("full-backing-filename", resolve_backing_name(node, backing));
    } catch (const Error&) {
      // Without a plain name of the image there is no full name; the stored one is shown.
    }
    result.set("backing-filename", backing);
  }
  if (node.encrypted()) result.set("encrypted", true);
  if (const auto dirty = node.dirty_flag()) result.set("dirty-flag", *dirty);
  co_return result;
}

bool flag_of(const Value& object, std::string_view key) {
  const Value* member = object.find(key);
  const bool* flag = member == nullptr ? nullptr : member->get_if<bool>();
  return flag != nullptr && *flag;
}

std::string size_text(uint64_t bytes) {
  return human_size(bytes) + " (" + std::to_string(bytes) + " bytes)";
}

void print_node(const Value& info, const std::string& path, size_t indent, bool below) {
  const std::string blanks(indent, ' ');
  const auto* children = info.find("children")->get_if<Value::Array>();
  const bool leaf = below && children->empty();
  const Value* actual = info.find("actual-size");
  print(blanks + (leaf ? "filename: " : "image: ") + shown(text_of(info, "filename")) + "\n");
  print(blanks + (leaf ? "protocol type: " : "file format: ") + text_of(info, "format") + "\n");
  print(blanks + (leaf ? "file length: " : "virtual size: ") +
        size_text(number_of(info, "virtual-size")) + "\n");
  print(blanks + "disk size: " +
        (actual == nullptr ? "unavailable" : human_size(number_of(info, "actual-size"))) + "\n");
  if (flag_of(info, "encrypted")) print(blanks + "encrypted: yes\n");
  if (info.find("cluster-size") != nullptr)
    print(blanks + "cluster_size: " + text_of(info, "cluster-size") + "\n");
  if (flag_of(info, "dirty-flag")) print(blanks + "cleanly shut down: no\n");
  if (info.find("backing-filename") != nullptr) {
    const std::string stored = text_of(info, "backing-filename");
    std::string line = "backing file: " + stored;
    if (info.find("full-backing-filename") == nullptr)
      line += " (cannot determine actual path)";
    else if (text_of(info, "full-backing-filename") != stored)
      line += " (actual path: " + text_of(info, "full-backing-filename") + ")";
    print(blanks + shown(line) + "\n");
  }
  if (info.find("backing-filename-format") != nullptr)
    print(blanks + "backing file format: " + shown(text_of(info, "backing-filename-format")) +
          "\n");
  if (const Value* snapshots = info.find("snapshots")) print_snapshots(*snapshots, blanks);
  if (const Value* specific = info.find("format-specific")) {
    const Value* data = specific->find("data");
    const auto* members = data->get_if<Value::Object>();
    if (members == nullptr || !members->empty()) {
      print(blanks + "Format specific information:\n");
      print_tree(*data, indent + 4);
    }
  }
  for (const Value& child : *children) {
    const std::string child_path = path + "/" + text_of(child, "name");
    print(blanks + "Child node '" + child_path + "':\n");
    print_node(*child.find("info"), child_path, indent + 4, true);
  }
}

Task<Value> look(Context& context, OpenRequest request) {
  NodePtr node = co_await open_node(context, std::move(request));
  std::exception_ptr error;
  Value info;
  try {
    info = co_await describe(*node);
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), error);
  co_return info;
}

}  // namespace

int run_info(Session& session, Arguments& arguments) {
  const bool json = json_output(session, arguments);
  if (arguments.words().size() != 1) throw UsageError{"Expecting one image file name"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  const bool chain = arguments.has('b');
  std::vector<Value> infos;
  std::set<std::string> seen;
  OpenRequest request =
      image_request(session, arguments, arguments.words()[0], arguments.value('f'));
  while (true) {
    request.flags.metadata_only = true;
    request.flags.no_backing = true;
    // One file is looked at: what it names is shown, not opened.
    if (session.for_people()) request.flags.references.mode = ReferencePolicy::Mode::kDeny;
    request.flags.find_parent = chain && session.for_people() && !session.untrusted;
    const std::string name = request.filename;
    if (!name.empty() && !seen.insert(name).second)
      fail(session, "Backing file '" + name + "' creates an infinite loop.");
    if (infos.size() > 200) fail(session, "The chain of images is deeper than 200 layers");
    infos.push_back(run(session, look(session.context, std::move(request))));
    const Value& info = infos.back();
    if (!chain || info.find("backing-filename") == nullptr) break;
    if (info.find("full-backing-filename") == nullptr)
      fail(session, "Could not determine absolute backing filename, but backing filename '" +
                        text_of(info, "backing-filename") + "' present");
    request = OpenRequest{};
    request.filename = text_of(info, "full-backing-filename");
    request.format = text_of(info, "backing-filename-format");
    request.flags.force_share = arguments.has('U');
    if (session.untrusted) {
      request.flags.references.mode = ReferencePolicy::Mode::kDeny;
      request.flags.references.check(request.filename);
    }
  }
  if (json) {
    Value out;
    if (chain) {
      out = Value::array();
      for (Value& info : infos) out.push_back(std::move(info));
    } else {
      out = std::move(infos.front());
    }
    print(out.pretty() + "\n");
    return 0;
  }
  for (size_t i = 0; i < infos.size(); ++i) {
    if (i != 0) print("\n");
    print_node(infos[i], "", 0, false);
  }
  return 0;
}

}  // namespace cairn::cli
