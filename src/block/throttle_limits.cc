#include "block/throttle_limits.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>

#include "base/error.h"

namespace cairn {
namespace {

constexpr uint64_t kMostRate = 1000000000000000;
constexpr const char* kNames[ThrottleLimits::kKinds] = {"bps-total",  "bps-read",  "bps-write",
                                                        "iops-total", "iops-read", "iops-write"};

}  // namespace

bool ThrottleLimits::knows(std::string name) {
  if (name == "iops-size") return true;
  for (const std::string_view ending : {"-max-length", "-max"})
    if (name.ends_with(ending)) {
      name.resize(name.size() - ending.size());
      break;
    }
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

void ThrottleLimits::update(Options& options) {
  const auto take = [&](const std::string& name, uint64_t* value) {
    for (const char* prefix : {"x-", "limits."}) {
      const std::string key = prefix + name;
      if (const auto given = options.number(key)) *value = *given;
      options.erase(key);
    }
  };
  for (int kind = 0; kind < kKinds; ++kind) {
    const std::string name = kNames[kind];
    take(name, &rates[kind].average);
    take(name + "-max", &rates[kind].max);
    take(name + "-max-length", &rates[kind].max_length);
  }
  take("iops-size", &iops_size);
}

void ThrottleLimits::store(Options& options) const {
  ThrottleLimits().update(options);
  const auto put = [&](const std::string& name, uint64_t value) {
    options.set("limits." + name, std::to_string(value));
  };
  for (int kind = 0; kind < kKinds; ++kind) {
    const ThrottleRate& rate = rates[kind];
    const std::string name = kNames[kind];
    if (rate.average != 0) put(name, rate.average);
    if (rate.max != 0) put(name + "-max", rate.max);
    if (rate.max != 0) put(name + "-max-length", rate.max_length);
  }
  if (iops_size != 0) put("iops-size", iops_size);
}

void ThrottleLimits::check() const {
  for (const int total : {kBpsTotal, kIopsTotal}) {
    const ThrottleRate& all = rates[total];
    const ThrottleRate& read = rates[total + 1];
    const ThrottleRate& write = rates[total + 2];
    if ((all.average != 0 && (read.average != 0 || write.average != 0)) ||
        (all.max != 0 && (read.max != 0 || write.max != 0)))
      invalid("bps/iops/max total values and read/write values cannot be used at the same time");
  }
  if (iops_size != 0 && rates[kIopsTotal].average == 0 && rates[kIopsRead].average == 0 &&
      rates[kIopsWrite].average == 0)
    invalid("iops size requires an iops value to be set");
  for (const ThrottleRate& rate : rates) {
    if (rate.average > kMostRate || rate.max > kMostRate)
      invalid("bps/iops/max values must be within [0, 1000000000000000]");
    if (rate.max_length == 0) invalid("the burst length cannot be 0");
    if (rate.max_length > 1 && rate.max == 0) invalid("burst length set without burst rate");
    if (rate.max != 0 && rate.max_length > kMostRate / rate.max)
      invalid("burst length too high for this burst rate");
    if (rate.max != 0 && rate.average == 0)
      invalid("bps_max/iops_max require corresponding bps/iops values");
    if (rate.max != 0 && rate.max < rate.average)
      invalid("bps_max/iops_max cannot be lower than bps/iops");
  }
}

bool ThrottleLimits::any() const {
  return std::any_of(std::begin(rates), std::end(rates),
                     [](const ThrottleRate& rate) { return rate.average != 0; });
}

void ThrottlePolicy::update(Options& options) {
  if (const auto given = options.boolean("count-discards")) count_discards = *given;
  if (const auto given = options.boolean("count-flushes")) count_flushes = *given;
  if (const auto given = options.string("share")) {
    if (*given != "requests" && *given != "bytes")
      invalid("Parameter 'share' accepts requests or bytes, not '" + *given + "'");
    by_bytes = *given == "bytes";
  }
  for (const char* name : {"count-discards", "count-flushes", "share"}) options.erase(name);
}

}  // namespace cairn
