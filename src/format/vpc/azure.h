#pragma once

#include <string>
#include <vector>

#include "block/node.h"

namespace cairn::vpc {

// What Azure wants a disk to be rounded up to.
inline constexpr uint64_t kAzureUnit = 1 << 20;

// Why the image in FILE is not one that Azure takes, a line for each reason. Sources: Microsoft,
// "Prepare a Windows VHD or VHDX to upload to Azure" and "Information for non-endorsed
// distributions": fixed, a whole number of MiB and the footer after them; for the footer the
// "Virtual Hard Disk Image Format Specification".
Task<std::vector<std::string>> azure_findings(Node& file);

}  // namespace cairn::vpc
