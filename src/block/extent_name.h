#pragma once

#include <string>

namespace cairn {

// The descriptor to which the extent FILE belongs, by the rules of the programs that write them:
// disk-s001.vmdk, disk-f001.vmdk, disk-flat.vmdk and disk-delta.vmdk belong to disk.vmdk. Empty
// when the name is none of an extent.
std::string descriptor_of_extent(const std::string& file);

// What to do with such a file, in words that follow "this is one extent of a disk; ". Blocks.
std::string extent_advice(const std::string& file);

}  // namespace cairn
