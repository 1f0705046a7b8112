#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "block/capabilities/checkable.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

struct CheckOptions {
  CheckRequest::Repair repair = CheckRequest::Repair::kNone;
  std::function<void(std::string_view line)> report = [](std::string_view) {};    // of findings
  std::function<void(std::string_view line)> complain = [](std::string_view) {};  // of failures
  // Something was repaired; the image is checked once more afterwards.
  std::function<void(const CheckResult&)> repaired = [](const CheckResult&) {};
};

struct CheckOutcome {
  CheckResult result;
  std::string format;
  bool unsupported = false;      // the format has no check, or no repair
  std::optional<Error> failure;  // what kept the check from being completed
};

// Opens the image of REQUEST and checks it. Throws when that fails.
Task<CheckOutcome> check(const Caller& caller, OpenRequest request, CheckOptions options);

}  // namespace cairn::operation
