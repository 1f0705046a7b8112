#pragma once

#include <string>
#include <vector>

#include "cli/session.h"
#include "operation/conversion.h"

namespace cairn::cli {

// What `convert` was asked for.
struct ConvertReport {
  std::vector<std::string> names;  // the sources, then the target
  std::string algorithm;           // of --hash; empty: none
  bool verified = false;
  const operation::Preset* preset = nullptr;  // of --for
  const operation::PresetImage* image = nullptr;
  bool quiet = false;
  bool salvaged = false;   // --salvage
  bool resumable = false;  // --resume
};

// Prints what was done for people, or as the object of --output json.
void report_conversion(const Session& session, const ConvertReport& asked,
                       const operation::ConversionResult& done);

}  // namespace cairn::cli
