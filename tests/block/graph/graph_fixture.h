// A graph in a folder that goes away, for the tests of src/block/graph.
#pragma once

#include "block/graph/graph.h"
#include "support.h"

namespace cairn::testing_support {

inline constexpr uint8_t kRead = Permissions::kConsistentRead;
inline constexpr uint8_t kWrite = Permissions::kWrite;
inline constexpr uint64_t kDisk = 4 << 20;
using Names = std::vector<std::string>;

class GraphTest : public testing::Test {
 protected:
  ~GraphTest() override { world_.run(graph_.close()); }

  NodePtr add(const std::string& options) {
    return world_.run(graph_.add(Options::parse_list(options)));
  }
  // A raw disk NAME over its file NAME-f.
  NodePtr add_raw(const std::string& name, const std::string& more = {}) {
    world_.create(folder_.file(name), "raw", kDisk);
    return add("driver=raw,node-name=" + name + ",file.driver=file,file.node-name=" + name +
               "-f,file.filename=" + folder_.file(name) + more);
  }
  NodePtr add_qcow2(const std::string& name, const std::string& more = {}) {
    world_.create(folder_.file(name), "qcow2", kDisk);
    return add("driver=qcow2,node-name=" + name + ",file.driver=file,file.node-name=" + name +
               "-f,file.filename=" + folder_.file(name) + more);
  }
  RootPtr attach(NodePtr node, uint8_t takes, uint8_t shares = Permissions::kAll) {
    NodeUse use;
    use.takes = takes;
    use.shares = shares;
    return world_.run(graph_.attach(std::move(node), std::move(use)));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const NodePtr& node : graph_.nodes()) result.push_back(node->node_name());
    return result;
  }

  Folder folder_;
  World world_;
  Graph graph_{world_.context};
};

}  // namespace cairn::testing_support
