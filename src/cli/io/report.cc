#include <fmt/core.h>

#include <cctype>
#include <cstdio>

#include "cli/io/transcript.h"

namespace cairn::cli::io {

std::string units(double value) {
  static constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  char text[400];
  std::snprintf(text, sizeof text, unit == 0 ? "%f" : "%.3f", value);
  std::string shown = text;
  const std::string_view none = unit == 0 ? ".000000" : ".000";
  if (shown.ends_with(none)) shown.resize(shown.size() - none.size());
  return shown + " " + kUnits[unit];
}

namespace {

std::string time_text(double seconds, bool fixed) {
  const auto hundredths = static_cast<uint64_t>(seconds * 100);
  const uint64_t whole = hundredths / 100;
  char text[80];
  if (whole == 0 && !fixed)
    std::snprintf(text, sizeof text, "%02u.%02u sec", 0u, static_cast<unsigned>(hundredths % 100));
  else
    std::snprintf(text, sizeof text, "%llu:%02u:%02u.%02u",
                  static_cast<unsigned long long>(whole / 3600),
                  static_cast<unsigned>(whole / 60 % 60), static_cast<unsigned>(whole % 60),
                  static_cast<unsigned>(hundredths % 100));
  return text;
}

}  // namespace

void print_outcome(const Outcome& outcome) {
  if (Transcript* transcript = Transcript::current()) return transcript->outcome(outcome);
  const double per_second = 1 / outcome.seconds;
  const double rate = outcome.done == 0 ? 0 : static_cast<double>(outcome.done) * per_second;
  char text[900];
  if (outcome.for_machines) {
    std::snprintf(text, sizeof text, "%llu,1,%s,%.3f,%.3f\n",
                  static_cast<unsigned long long>(outcome.done),
                  time_text(outcome.seconds, true).c_str(), rate, per_second);
    print(text);
    return;
  }
  std::snprintf(text, sizeof text, "%s %llu/%llu bytes at offset %llu\n",
                std::string(outcome.verb).c_str(), static_cast<unsigned long long>(outcome.done),
                static_cast<unsigned long long>(outcome.asked),
                static_cast<unsigned long long>(outcome.offset));
  print(text);
  std::snprintf(text, sizeof text, "%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n",
                units(static_cast<double>(outcome.done)).c_str(),
                time_text(outcome.seconds, false).c_str(), units(rate).c_str(), per_second);
  print(text);
}

void dump(ByteSpan bytes, uint64_t offset) {
  for (size_t at = 0; at < bytes.size(); at += 16) {
    char part[40];
    std::snprintf(part, sizeof part, "%08llx:  ", static_cast<unsigned long long>(offset + at));
    std::string line = part;
    std::string letters;
    for (size_t i = at; i < std::min(at + 16, bytes.size()); ++i) {
      const auto byte = static_cast<unsigned char>(bytes[i]);
      std::snprintf(part, sizeof part, "%02x ", byte);
      line += part;
      letters.push_back(std::isalnum(byte) ? static_cast<char>(byte) : '.');
    }
    print(line + " " + letters + "\n");
  }
}

bool verify(ByteSpan bytes, uint8_t pattern, uint64_t offset) {
  for (const std::byte byte : bytes) {
    if (byte == std::byte{pattern}) continue;
    print(
        fmt::format("Pattern verification failed at offset {}, {} bytes\n", offset, bytes.size()));
    return false;
  }
  return true;
}

}  // namespace cairn::cli::io
