#pragma once

#include <string>

namespace cairn {

class Node;

// A name for the headers of other images: what is opened by it later is the disk that NODE is now.
// Where NODE has another backing file than its image names, or none, it is a name json:… that says
// so. The graph's lock is held.
std::string lasting_name(Node& node);

}  // namespace cairn
