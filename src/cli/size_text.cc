#include "cli/size_text.h"

#include <algorithm>
#include <cctype>

#include "block/driver.h"

namespace cairn::cli {
namespace {

constexpr std::string_view kUnits = "kmgtpe";
constexpr size_t kMostDigits = 18;  // that 64 bits hold

// DIGITS with a dot or none, times 1000^POWER. Empty when it is no such number, or not whole.
std::string decimal(std::string_view digits, size_t power) {
  std::string whole(digits.substr(0, digits.find('.')));
  std::string part;
  if (whole.size() != digits.size()) part = digits.substr(whole.size() + 1);
  const auto number = [](const std::string& text) {
    return std::all_of(text.begin(), text.end(),
                       [](unsigned char c) { return std::isdigit(c) != 0; });
  };
  if ((whole.empty() && part.empty()) || !number(whole) || !number(part)) return {};
  while (part.ends_with('0')) part.pop_back();
  if (part.size() > 3 * power) return {};
  part.resize(3 * power, '0');
  whole += part;
  whole.erase(0, std::min(whole.find_first_not_of('0'), whole.size() - 1));
  // Beyond every limit: as large as a number can be written.
  return whole.size() > kMostDigits + 1 ? "16E" : whole;
}

}  // namespace

std::string plain_size(const Session& session, std::string text) {
  return session.manners.plain_sizes ? plain_size(std::move(text)) : text;
}

std::string plain_size(std::string text) {
  if (text.size() < 3 || std::tolower(text.back()) != 'b') return text;
  const bool binary = std::tolower(text[text.size() - 2]) == 'i';
  const size_t unit_at = text.size() - (binary ? 3 : 2);
  const size_t unit = kUnits.find(static_cast<char>(std::tolower(text[unit_at])));
  // "0x1eb" is a number.
  if (unit == std::string_view::npos || text.find_first_of("xX") != std::string::npos) return text;
  if (binary) return text.substr(0, unit_at + 1);
  std::string_view digits = std::string_view(text).substr(0, unit_at);
  std::string sign;
  if (digits.starts_with('+') || digits.starts_with('-')) sign = digits.front();
  const std::string bytes = decimal(digits.substr(sign.size()), unit + 1);
  return bytes.empty() ? text : sign + bytes;
}

void plain_sizes(const Session& session, Options& options) {
  if (!session.manners.plain_sizes) return;
  const auto is_size = [&](std::string_view key) {
    for (const Driver* driver : session.context.registry().all())
      for (const OptionSpec& spec : driver->create_options())
        if (spec.name == key && spec.type == OptionType::kSize) return true;
    return false;
  };
  Options changed;
  for (const auto& [key, value] : options.items())
    if (const auto text = options.string(key); text && is_size(key))
      changed.set(key, plain_size(session, *text));
  for (const auto& [key, value] : changed.items()) options.set(key, *changed.string(key));
}

}  // namespace cairn::cli
