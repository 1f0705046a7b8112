#include "format/dmg/plist.h"

#include <fmt/core.h>

#include <algorithm>
#include <pugixml.hpp>
#include <string>
#include <string_view>

#include "base/base64.h"

namespace cairn::dmg {
namespace {

constexpr int kMaxDepth = 100;
// What begins an element or follows the name of an attribute: each of them takes up to 128 bytes of
// memory when it is read, and a character of the text.
constexpr ptrdiff_t kMaxMarks = 1 << 20;
constexpr std::string_view kEnd = "</plist>";

std::string_view without_what_follows(std::string_view text) {
  const size_t end = text.rfind(kEnd);
  return end == std::string_view::npos ? text : text.substr(0, end + kEnd.size());
}

class Plist : pugi::xml_tree_walker {
 public:
  Plist(std::string_view text, const std::function<void(ByteSpan)>& data)
      : text_(without_what_follows(text)), data_(data) {}

  void read() {
    if (std::count_if(text_.begin(), text_.end(), [](char c) { return c == '<' || c == '='; }) >
        kMaxMarks)
      refuse(0, fmt::format("it has more than {} elements and attributes", kMaxMarks));
    const pugi::xml_parse_result result = document_.load_buffer(
        text_.data(), text_.size(), pugi::parse_default | pugi::parse_doctype);
    if (result.status == pugi::status_end_element_mismatch) refuse(result.offset, "mismatched tag");
    if (!result) refuse(result.offset, result.description());
    document_.traverse(*this);
  }

 private:
  bool for_each(pugi::xml_node& node) override {
    const std::string_view name = node.name();
    if (node.type() == pugi::node_doctype &&
        std::string_view(node.value()).find("<!ENTITY") != std::string_view::npos)
      refuse(node.offset_debug(), "it declares entities");
    if (node.type() != pugi::node_element) return true;
    if (depth() >= kMaxDepth) refuse(node.offset_debug(), "its elements are nested too deep");
    if (name == "data") add_data(node);
    return true;
  }

  void add_data(const pugi::xml_node& element) const {
    std::string base64;
    for (const pugi::xml_node part : element.children()) {
      if (part.type() == pugi::node_element)
        refuse(part.offset_debug(), "there is an element inside of a data element");
      if (part.type() != pugi::node_pcdata && part.type() != pugi::node_cdata) continue;
      const std::string_view text = part.value();
      std::copy_if(text.begin(), text.end(), std::back_inserter(base64),
                   [](char c) { return c != ' ' && c != '\t' && c != '\n' && c != '\r'; });
    }
    const auto bytes = decode_base64(base64);
    if (!bytes) refuse(element.offset_debug(), "a data element is not in base64");
    data_(bytes_of(*bytes));
  }

  [[noreturn]] void refuse(ptrdiff_t offset, const std::string& why) const {
    const std::string_view before =
        text_.substr(0, static_cast<size_t>(std::max<ptrdiff_t>(offset, 0)));
    throw Error(ErrorKind::kInvalid,
                fmt::format("property list, line {}: {}",
                            1 + std::count(before.begin(), before.end(), '\n'), why));
  }

  std::string_view text_;
  const std::function<void(ByteSpan)>& data_;
  pugi::xml_document document_;
};

}  // namespace

void each_data(ByteSpan plist, const std::function<void(ByteSpan)>& data) {
  const std::string_view text(reinterpret_cast<const char*>(plist.data()), plist.size());
  if (text.starts_with("bplist"))
    throw Error(ErrorKind::kInvalid, "property list: it is a binary one, not XML");
  Plist(text, data).read();
}

}  // namespace cairn::dmg
