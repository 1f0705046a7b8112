#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/presets.h"
#include "cli/session.h"

namespace cairn::cli {

// What `convert` has done.
struct ConvertReport {
  std::vector<std::string> names;  // the sources, then the target
  std::string format;              // of the target
  uint64_t bytes = 0;              // of the disk in it
  std::string algorithm;           // of --hash; empty: none
  std::string digest;
  bool verified = false;
  const Preset* preset = nullptr;  // of --for
  const PresetImage* image = nullptr;
  bool quiet = false;
};

// Prints it for people, or as the object of --output json.
void report_conversion(const Session& session, const ConvertReport& done);

}  // namespace cairn::cli
