#include "protocol/s3/answers.h"

#include <charconv>
#include <pugixml.hpp>
#include <sstream>

namespace cairn::s3 {
namespace {

constexpr size_t kMostDocumentBytes = 1 << 20;
constexpr size_t kMostTextBytes = 300;
// Ids are opaque: one that is longer than any service's is refused rather than cut.
constexpr size_t kMostIdBytes = 4096;

std::string_view local(const char* name) {
  const std::string_view whole = name;
  return whole.substr(whole.find(':') + 1);
}

// The root element of TEXT when it is called NAME; else an empty node.
pugi::xml_node root(pugi::xml_document& document, std::string_view text, std::string_view name) {
  if (text.size() > kMostDocumentBytes) return {};
  if (!document.load_buffer(text.data(), text.size(), pugi::parse_default, pugi::encoding_utf8))
    return {};
  const pugi::xml_node found = document.document_element();
  return local(found.name()) == name ? found : pugi::xml_node();
}

std::string_view child(const pugi::xml_node& node, std::string_view name) {
  for (const pugi::xml_node one : node.children())
    if (local(one.name()) == name) return one.child_value();
  return {};
}

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string readable(std::string_view text) {
  std::string result(text.substr(0, kMostTextBytes));
  for (char& c : result)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return result;
}

}  // namespace

std::optional<ServerError> parse_error(std::string_view text) {
  pugi::xml_document document;
  const pugi::xml_node error = root(document, text, "Error");
  if (!error) return std::nullopt;
  return ServerError{.code = readable(child(error, "Code")),
                     .message = readable(child(error, "Message")),
                     .region = readable(child(error, "Region"))};
}

std::optional<std::string> parse_upload_id(std::string_view text) {
  pugi::xml_document document;
  const pugi::xml_node result = root(document, text, "InitiateMultipartUploadResult");
  const std::string_view id = child(result, "UploadId");
  if (id.empty() || id.size() > kMostIdBytes) return std::nullopt;
  return std::string(id);
}

std::optional<PartList> parse_part_list(std::string_view text) {
  pugi::xml_document document;
  const pugi::xml_node result = root(document, text, "ListPartsResult");
  if (!result) return std::nullopt;
  PartList list;
  uint64_t last = 0;
  for (const pugi::xml_node part : result.children()) {
    if (local(part.name()) != "Part") continue;
    const auto which = number(child(part, "PartNumber"));
    const auto bytes = number(child(part, "Size"));
    if (!which || !bytes || *which <= last) return std::nullopt;
    last = *which;
    list.parts.emplace(last, PartList::Part{*bytes, readable(child(part, "ETag"))});
  }
  if (child(result, "IsTruncated") != "true") return list;
  // Without a part there would be no progress.
  if (list.parts.empty()) return std::nullopt;
  list.next = last;
  return list;
}

bool is_completed(std::string_view text) {
  pugi::xml_document document;
  return !root(document, text, "CompleteMultipartUploadResult").empty();
}

std::string complete_document(const std::vector<std::string>& etags) {
  pugi::xml_document document;
  pugi::xml_node all = document.append_child("CompleteMultipartUpload");
  for (size_t i = 0; i < etags.size(); ++i) {
    pugi::xml_node part = all.append_child("Part");
    part.append_child("PartNumber").text().set(static_cast<unsigned long long>(i + 1));
    part.append_child("ETag").text().set(etags[i].c_str());
  }
  std::ostringstream out;
  document.save(out, "", pugi::format_raw | pugi::format_no_declaration);
  return out.str();
}

}  // namespace cairn::s3
