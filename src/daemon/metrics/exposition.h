#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace cairn::daemon {

using Label = std::pair<std::string_view, std::string_view>;
using Labels = std::initializer_list<Label>;

// Writes metrics in the text format of Prometheus, version 0.0.4: begin() one, then its samples.
class Exposition {
 public:
  // TYPE: "counter", "gauge" or "histogram". HELP: one line.
  void begin(std::string_view name, std::string_view type, std::string_view help);
  // A sample of the metric that was begun. SUFFIX is appended to its name.
  void sample(Labels labels, uint64_t value, std::string_view suffix = {});
  void sample_seconds(Labels labels, uint64_t nanoseconds, std::string_view suffix = {});

  const std::string& text() const { return text_; }

 private:
  void open(Labels labels, std::string_view suffix);
  std::string name_;
  std::string text_;
};

// NANOSECONDS as a number of seconds without zeroes at its end: "0.0025".
std::string seconds_text(uint64_t nanoseconds);

}  // namespace cairn::daemon
