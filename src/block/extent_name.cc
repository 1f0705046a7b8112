#include "block/extent_name.h"

#include <cctype>

#include "platform/file.h"

namespace cairn {

std::string descriptor_of_extent(const std::string& file) {
  const size_t dot = file.rfind('.');
  const size_t dash = file.rfind('-');
  if (dot == std::string::npos || dash == std::string::npos || dash > dot) return {};
  const std::string mark = file.substr(dash + 1, dot - dash - 1);
  bool numbered = mark.size() >= 4 && (mark[0] == 's' || mark[0] == 'f');
  for (size_t i = 1; i < mark.size(); ++i)
    numbered = numbered && std::isdigit(static_cast<unsigned char>(mark[i])) != 0;
  if (!numbered && mark != "flat" && mark != "delta" && mark != "sesparse") return {};
  return file.substr(0, dash) + file.substr(dot);
}

std::string extent_advice(const std::string& file) {
  const std::string name = descriptor_of_extent(file);
  if (!name.empty() && platform::exists(name)) return "open the descriptor ('" + name + "')";
  return "open the descriptor, the small .vmdk file that names it" +
         (name.empty() ? std::string() : " ('" + name + "' is not there)");
}

}  // namespace cairn
