#include "protocol/uri_text.h"

#include <algorithm>

#include "base/error.h"
#include "base/percent.h"

namespace cairn {

std::string decoded_part(std::string_view text) {
  std::string result = percent_decoded(text);
  if (result.find('\0') != std::string::npos) invalid("the URI has a zero byte");
  return result;
}

std::string_view cut(std::string_view* text, char mark) {
  const size_t at = std::min(text->find(mark), text->size());
  const std::string_view part = text->substr(0, at);
  text->remove_prefix(std::min(at + 1, text->size()));
  return part;
}

}  // namespace cairn
