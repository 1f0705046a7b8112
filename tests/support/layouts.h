// The layouts of all formats, as the drivers name them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "block/capabilities/checkable.h"
#include "block/driver.h"
#include "drivers.h"

namespace cairn::testing_support {

struct Layout {
  std::string name;  // the format's and the sample's
  std::string format;
  Sample sample;
  bool check = false;   // the format can be checked
  bool resize = false;  // and resized
  std::string options() const { return std::string(sample.options); }
  std::string open_options() const { return std::string(sample.open_options); }
  bool has(std::string_view option) const {
    return sample.options.find(option) != std::string_view::npos;
  }
};

// The layouts of every driver that WANTED takes.
template <class Wanted>
std::vector<Layout> layouts(Wanted wanted) {
  static const Registry registry = [] {
    Registry all;
    register_drivers(all);
    return all;
  }();
  std::vector<Layout> result;
  for (const Driver* driver : registry.all())
    for (const Sample& sample : driver->traits().samples)
      if (wanted(sample))
        result.push_back({.name = std::string(driver->name()) + "_" + std::string(sample.name),
                          .format = std::string(driver->name()),
                          .sample = sample,
                          .check = driver->offers<Checkable>(),
                          .resize = driver->abilities().resize});
  return result;
}

}  // namespace cairn::testing_support
