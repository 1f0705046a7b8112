#pragma once

#include <string>

#include "block/node.h"
#include "block/open.h"

namespace cairn {

// The images above the one being opened, innermost first.
struct OpenAncestors {
  std::string identity;
  const OpenAncestors* above = nullptr;
};

// Opens the nodes of one tree. A friend of Node: it sets what the request layer needs to know.
class Opener {
 public:
  struct Spot {
    std::string filename;
    std::string format;
    Options options;
    OpenFlags flags;
    unsigned depth = 0;
    const OpenAncestors* ancestors = nullptr;
    Permissions permissions;            // for protocols
    bool protocol_level = false;        // the name stands for bytes, not for an image
    bool writable_if_possible = false;  // auto-read-only
    NodePtr backing;                    // of the image, already open
    NodePtr file;                       // to be put over
  };

  static Task<NodePtr> open(Context& context, Spot spot);
  static std::string canonical_name(const Node& node, const Options& own, bool plain);

 private:
  static void take_generic(Spot& spot, Node::DetectZeroes* detect, std::string* node_name);
  static Task<const Driver*> probe(Context& context, Node& file);
  static Task<const Driver*> format_on(Context& context, NodePtr bytes);
  static std::string shown_name(const Node& node, const Options& given, const std::string& name);
  static Task<NodePtr> put_cache_over(Context& context, const OpenFlags& flags, NodePtr node);
  static void guard_probed_raw(Node& node, const OpenFlags& flags);
};

}  // namespace cairn
