#include "format/vmdk/descriptor.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <optional>

#include "base/error.h"
#include "platform/system.h"

namespace cairn::vmdk {
namespace {

constexpr size_t kMaxFileName = 511;
constexpr size_t kMaxHint = 1023;
constexpr size_t kMaxExtents = 65536;

bool same(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

struct Line {
  size_t begin = 0;  // in the text
  size_t end = 0;    // of the text of the line, without its end
  size_t next = 0;
};

std::vector<Line> lines_of(std::string_view text) {
  std::vector<Line> lines;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', at);
    if (end == std::string_view::npos) end = text.size();
    lines.push_back({at, end, std::min(end + 1, text.size())});
    at = end + 1;
  }
  return lines;
}

struct Setting {
  std::string_view key;
  std::string_view value;  // quotes included
};

std::optional<Setting> setting_of(std::string_view line) {
  line = trim(line);
  if (line.empty() || line.front() == '#') return std::nullopt;
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos) return std::nullopt;
  return Setting{trim(line.substr(0, equals)), trim(line.substr(equals + 1))};
}

std::string unquote(std::string_view value) {
  if (value.empty() || value.front() != '"') return std::string(value);
  const size_t end = value.find('"', 1);
  if (end == std::string_view::npos) invalid("invalid VMDK image descriptor");
  return std::string(value.substr(1, end - 1));
}

uint32_t hex_value(std::string_view key, std::string_view value) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number, 16);
  if (value.empty() || error != std::errc() || end != value.data() + value.size())
    invalid("invalid VMDK image descriptor: " + std::string(key) + " is not a hexadecimal number");
  return static_cast<uint32_t>(number);
}

struct Token {
  std::string text;
  bool quoted = false;
};

std::optional<std::vector<Token>> tokens_of(std::string_view line) {
  std::vector<Token> tokens;
  while (true) {
    line = trim(line);
    if (line.empty()) return tokens;
    if (line.front() == '"') {
      const size_t end = line.find('"', 1);
      if (end == std::string_view::npos) return std::nullopt;
      tokens.push_back({std::string(line.substr(1, end - 1)), true});
      line.remove_prefix(end + 1);
    } else {
      const size_t end = std::min(line.find_first_of(" \t"), line.size());
      tokens.push_back({std::string(line.substr(0, end)), false});
      line.remove_prefix(end);
    }
  }
}

std::optional<uint64_t> decimal(const Token& token) {
  uint64_t number = 0;
  const char* begin = token.text.data();
  const char* end = begin + token.text.size();
  const auto [stop, error] = std::from_chars(begin, end, number);
  if (token.quoted || error != std::errc() || stop != end) return std::nullopt;
  return number;
}

std::optional<Access> access_of(std::string_view word) {
  if (same(word, "RW")) return Access::kReadWrite;
  if (same(word, "RDONLY")) return Access::kReadOnly;
  if (same(word, "NOACCESS")) return Access::kNone;
  return std::nullopt;
}

bool is_extent_line(std::string_view line) {
  line = trim(line);
  const size_t end = line.find_first_of(" \t");
  return end != std::string_view::npos && access_of(line.substr(0, end)).has_value();
}

ExtentLine parse_extent(std::string_view line) {
  const auto bad = [&]() { invalid("Invalid extent line: " + std::string(trim(line))); };
  const auto tokens = tokens_of(line);
  if (!tokens || tokens->size() < 3) bad();
  ExtentLine extent;
  extent.access = *access_of((*tokens)[0].text);
  const auto sectors = decimal((*tokens)[1]);
  if (!sectors || *sectors == 0) bad();
  if (*sectors >= uint64_t{1} << 54)
    throw Error(ErrorKind::kTooLarge, "Could not refresh total sector count: File too large");
  extent.sectors = *sectors;
  const std::string& type = (*tokens)[2].text;
  if (same(type, "VMFSRDM") || same(type, "VMFSRAW"))
    throw Error(ErrorKind::kUnsupported,
                "The disk is a raw device mapping of an ESXi host; its data is not in these files");
  bool known = false;
  for (const ExtentType one : {ExtentType::kFlat, ExtentType::kVmfs, ExtentType::kSparse,
                               ExtentType::kVmfsSparse, ExtentType::kSeSparse, ExtentType::kZero}) {
    if (!same(type, to_string(one))) continue;
    extent.type = one;
    known = true;
  }
  if (!known || (*tokens)[2].quoted) bad();
  if (extent.type == ExtentType::kZero) return extent;
  if (tokens->size() < 4 || !(*tokens)[3].quoted || (*tokens)[3].text.empty() ||
      (*tokens)[3].text.size() > kMaxFileName)
    bad();
  extent.file = (*tokens)[3].text;
  const bool flat = extent.type == ExtentType::kFlat;
  if (flat && tokens->size() < 5) bad();
  if (tokens->size() >= 5) {
    const auto offset = decimal((*tokens)[4]);
    if (!flat || !offset || *offset >= uint64_t{1} << 54) bad();
    extent.offset = *offset;
  }
  return extent;
}

std::string hex8(uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

}  // namespace

std::string_view to_string(ExtentType type) {
  switch (type) {
    case ExtentType::kFlat:
      return "FLAT";
    case ExtentType::kVmfs:
      return "VMFS";
    case ExtentType::kSparse:
      return "SPARSE";
    case ExtentType::kVmfsSparse:
      return "VMFSSPARSE";
    case ExtentType::kSeSparse:
      return "SESPARSE";
    case ExtentType::kZero:
      return "ZERO";
  }
  return "";
}

Descriptor Descriptor::parse(std::string text, bool embedded) {
  Descriptor result;
  result.text_ = std::move(text);
  result.text_.resize(std::min(result.text_.find('\0'), result.text_.size()));
  std::optional<std::string> type;
  std::optional<std::string> hint;
  std::optional<uint32_t> cid;
  std::optional<uint32_t> parent;
  bool version = false;
  for (const Line& at : lines_of(result.text_)) {
    const std::string_view line =
        std::string_view(result.text_).substr(at.begin, at.end - at.begin);
    if (!embedded && is_extent_line(line)) {
      if (result.extents_.size() == kMaxExtents)
        invalid(fmt::format("The descriptor has more than {} extents", kMaxExtents));
      result.extents_.push_back(parse_extent(line));
      continue;
    }
    const auto setting = setting_of(line);
    if (!setting) continue;
    if (same(setting->key, "createType") && !type) type = unquote(setting->value);
    if (same(setting->key, "CID") && !cid) cid = hex_value("CID", setting->value);
    if (same(setting->key, "parentCID") && !parent) parent = hex_value("parentCID", setting->value);
    if (same(setting->key, "parentFileNameHint") && !hint) hint = unquote(setting->value);
    if (same(setting->key, "isNativeSnapshot") && same(unquote(setting->value), "yes"))
      throw Error(ErrorKind::kUnsupported,
                  "The disk is a snapshot of a storage array; its data is not in these files");
    if (same(setting->key, "version") && !version) {
      version = true;
      const auto number = decimal({unquote(setting->value), false});
      result.version_ = number && *number <= 1000 ? static_cast<unsigned>(*number) : 0;
    }
  }
  if (!embedded && !type) invalid("invalid VMDK image descriptor");
  if (!cid) invalid("invalid VMDK image descriptor: there is no CID");
  if (!parent) invalid("invalid VMDK image descriptor: there is no parentCID");
  if (hint && hint->size() > kMaxHint)
    invalid("invalid VMDK image descriptor: parentFileNameHint is too long");
  result.create_type_ = type.value_or("");
  result.parent_hint_ = hint.value_or("");
  result.cid_ = *cid;
  result.parent_cid_ = *parent;
  return result;
}

void Descriptor::set_hex(std::string_view key, uint32_t value) {
  for (const Line& at : lines_of(text_)) {
    const auto setting = setting_of(std::string_view(text_).substr(at.begin, at.end - at.begin));
    if (!setting || !same(setting->key, key)) continue;
    const auto where = static_cast<size_t>(setting->value.data() - text_.data());
    text_.replace(where, setting->value.size(), hex8(value));
    return;
  }
}

void Descriptor::set_cid(uint32_t cid) {
  set_hex("CID", cid);
  cid_ = cid;
}

void Descriptor::set_parent(const std::string& hint, uint32_t cid) {
  if (hint.size() > kMaxHint || hint.find_first_of("\"\r\n") != std::string::npos)
    invalid("The name of the backing file cannot be stored in a VMDK descriptor");
  set_hex("parentCID", hint.empty() ? kNoParent : cid);
  drop("parentFileNameHint");
  if (!hint.empty()) {
    for (const Line& at : lines_of(text_)) {
      const auto setting = setting_of(std::string_view(text_).substr(at.begin, at.end - at.begin));
      if (!setting || !same(setting->key, "createType")) continue;
      if (at.next == at.end) text_.push_back('\n');
      text_.insert(at.end + 1, "parentFileNameHint=\"" + hint + "\"\n");
      break;
    }
  }
  parent_hint_ = hint;
  parent_cid_ = hint.empty() ? kNoParent : cid;
}

void Descriptor::drop(std::string_view key) {
  for (const Line& at : lines_of(text_)) {
    const auto setting = setting_of(std::string_view(text_).substr(at.begin, at.end - at.begin));
    if (!setting || !same(setting->key, key)) continue;
    text_.erase(at.begin, at.next - at.begin);
    return;
  }
}

std::string database_value(std::string_view text, std::string_view key) {
  for (const Line& at : lines_of(text)) {
    const auto setting = setting_of(text.substr(at.begin, at.end - at.begin));
    if (setting && same(setting->key, key)) return unquote(setting->value);
  }
  return {};
}

std::string compose(const DescriptorPlan& plan) {
  const uint64_t heads = plan.adapter == "ide" ? 16 : 255;
  std::string text = "# Disk DescriptorFile\nversion=1\nCID=" + hex8(plan.cid) +
                     "\nparentCID=" + hex8(plan.parent_cid) + "\ncreateType=\"" + plan.create_type +
                     "\"\n";
  if (plan.parent_hint.empty())
    text += "\n";
  else
    text += "parentFileNameHint=\"" + plan.parent_hint + "\"\n";
  text += "# Extent description\n";
  for (const std::string& line : plan.extent_lines) text += line + "\n";
  text += "\n# The Disk Data Base\n#DDB\n\n";
  text += "ddb.virtualHWVersion = \"" + plan.hardware_version + "\"\n";
  text += fmt::format("ddb.geometry.cylinders = \"{}\"\n", plan.sectors / (63 * heads));
  text += fmt::format("ddb.geometry.heads = \"{}\"\n", heads);
  text += "ddb.geometry.sectors = \"63\"\n";
  text += "ddb.adapterType = \"" + plan.adapter + "\"\n";
  text += "ddb.toolsVersion = \"" + plan.tools_version + "\"\n";
  return text;
}

uint32_t random_cid() {
  while (true) {
    uint32_t value = 0;
    if (!platform::random_bytes(&value, sizeof value)) throw Error::system(errno);
    if (value != 0 && value < 0xfffffffe) return value;
  }
}

bool looks_like_descriptor(std::string_view head) {
  if (head.starts_with("\xef\xbb\xbf")) head.remove_prefix(3);
  bool titled = false;
  for (const Line& at : lines_of(head)) {
    const std::string_view line = trim(head.substr(at.begin, at.end - at.begin));
    if (line.find('\0') != std::string_view::npos) return false;
    if (line.empty()) continue;
    if (line.front() == '#') {
      titled = titled || same(line, "# Disk DescriptorFile");
      continue;
    }
    const auto setting = setting_of(line);
    if (!setting) return false;
    if (same(setting->key, "version"))
      return setting->value == "1" || setting->value == "2" || setting->value == "3";
    if (!titled && !same(setting->key, "encoding")) return false;
    if (titled) return true;
  }
  return false;
}

}  // namespace cairn::vmdk
