#include <fmt/core.h>

#include "base/size.h"
#include "cli/escape.h"
#include "cli/snapshot_table.h"
#include "cli/verbs.h"
#include "qemu/json_order.h"

namespace cairn::cli {
namespace {

bool flag_of(const Value& object, std::string_view key) {
  const Value* member = object.find(key);
  const bool* flag = member == nullptr ? nullptr : member->get_if<bool>();
  return flag != nullptr && *flag;
}

std::string size_text(uint64_t bytes) {
  return fmt::format("{} ({} bytes)", human_size(bytes), bytes);
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
      print(tree_text(*data, indent + 4));
    }
  }
  for (const Value& child : *children) {
    const std::string child_path = path + "/" + text_of(child, "name");
    print(blanks + "Child node '" + child_path + "':\n");
    print_node(*child.find("info"), child_path, indent + 4, true);
  }
}

int run_info(Session& session, Arguments& arguments) {
  const bool json = json_output(session, arguments);
  if (arguments.words().size() != 1) throw UsageError{"Expecting one image file name"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  const bool chain = arguments.has('b');
  OpenRequest request =
      image_request(session, arguments, arguments.words()[0], arguments.value('f'));
  std::vector<Value> infos =
      operation::describe_images(session.caller(), std::move(request), chain, arguments.has('U'));
  if (json) {
    Value out;
    if (chain) {
      out = Value::array();
      for (Value& info : infos) out.push_back(std::move(info));
    } else {
      out = std::move(infos.front());
    }
    print(out.pretty(qemu::json_order) + "\n");
    return 0;
  }
  for (size_t i = 0; i < infos.size(); ++i) {
    if (i != 0) print("\n");
    print_node(infos[i], "", 0, false);
  }
  return 0;
}

}  // namespace

Verb info_verb() {
  return {.name = "info",
          .summary = "prints format, size and other properties of an image",
          .synopsis = "[--object DEF] [--image-opts] [-f FMT] [--output=FMT] [-b] [-U] FILE",
          .flags = {kFormatFlag,
                    kOutputFlag,
                    {'b', "backing-chain", nullptr, "include all backing files"},
                    kForceShareFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .own_flags = {kDiskFlag},
          .run = run_info};
}

}  // namespace cairn::cli
