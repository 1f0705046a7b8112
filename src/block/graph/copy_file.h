#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "block/graph/graph.h"

namespace cairn {

// A file that is to hold a copy of the node SOURCE.
struct CopyFile {
  // What the image refers to, for what the copy leaves out.
  enum class Below : uint8_t {
    kNothing,        // all of it is copied
    kSourceBacking,  // what is below the source
    kSource,         // the source itself
  };
  NodePtr source;
  std::string file;            // as people write names
  std::string format;          // empty: the source's, or what is found in a file that is there
  std::string node_name;       // empty: one is made
  bool existing = false;       // it is there; otherwise it is made, and stays when opening it fails
  bool detect_zeroes = false;  // written zeroes take no space in it
  bool unmap = true;           // discards are passed on
  bool open_backing = true;    // what it refers to is opened with it
  Below below = Below::kNothing;
  std::function<void(std::string_view)> announce = {};  // "Formatting …"
};

// Makes the file where it is not there, and opens it as a node that goes when nobody uses it
// (Graph::sweep()). With the lock of changes held. Throws in QEMU's words.
Task<NodePtr> open_copy_file(Graph& graph, CopyFile request);

}  // namespace cairn
