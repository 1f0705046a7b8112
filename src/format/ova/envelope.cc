#include "format/ova/envelope.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <pugixml.hpp>
#include <sstream>

#include "base/arith.h"
#include "base/error.h"

namespace cairn::ova {
namespace {

constexpr size_t kMaxDisks = 1024;
constexpr size_t kMaxNameBytes = 64;

// Without its prefix: which one stands for a namespace is the writer's choice.
std::string_view local(const char* name) {
  const std::string_view whole = name;
  return whole.substr(whole.find(':') + 1);
}

pugi::xml_node child(const pugi::xml_node& node, std::string_view name) {
  for (const pugi::xml_node one : node.children())
    if (local(one.name()) == name) return one;
  return {};
}

pugi::xml_attribute attribute(const pugi::xml_node& node, std::string_view name) {
  for (const pugi::xml_attribute one : node.attributes())
    if (local(one.name()) == name) return one;
  return {};
}

std::string value(const pugi::xml_node& node, std::string_view name) {
  return attribute(node, name).value();
}

// The section NAME, also as version 0.9 spells it: <Section xsi:type="ovf:NAME_Type">.
pugi::xml_node section(const pugi::xml_node& envelope, std::string_view name) {
  if (const pugi::xml_node found = child(envelope, name)) return found;
  for (const pugi::xml_node one : envelope.children())
    if (local(one.name()) == "Section" &&
        local(attribute(one, "type").value()) == std::string(name) + "_Type")
      return one;
  return {};
}

std::optional<uint64_t> plain_number(std::string_view text) {
  if (text.empty() || text.size() > 19) return std::nullopt;
  uint64_t result = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') return std::nullopt;
    result = result * 10 + static_cast<uint64_t>(digit - '0');
  }
  return result;
}

// "byte", "byte * 2^30", "byte * 10^9".
std::optional<uint64_t> unit_bytes(std::string text) {
  std::erase(text, ' ');
  if (text.empty() || text == "byte") return 1;
  uint64_t base = 0;
  if (text.starts_with("byte*2^")) base = 2;
  if (text.starts_with("byte*10^")) base = 10;
  if (base == 0) return std::nullopt;
  const auto exponent = plain_number(std::string_view(text).substr(text.find('^') + 1));
  if (!exponent || *exponent > 62) return std::nullopt;
  std::optional<uint64_t> result = 1;
  for (uint64_t i = 0; result && i < *exponent; ++i) result = checked_mul(*result, base);
  return result;
}

// What "%20" and its kind stand for.
std::string decoded(std::string_view href) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  };
  std::string result;
  for (size_t i = 0; i < href.size(); ++i) {
    const bool escape =
        href[i] == '%' && i + 2 < href.size() && digit(href[i + 1]) >= 0 && digit(href[i + 2]) >= 0;
    result += escape ? static_cast<char>(digit(href[i + 1]) * 16 + digit(href[i + 2])) : href[i];
    if (escape) i += 2;
  }
  return result;
}

pugi::xml_document load(std::string_view text) {
  pugi::xml_document document;
  // Declarations of types and of entities have no effect.
  const pugi::xml_parse_result result =
      document.load_buffer(text.data(), text.size(), pugi::parse_default | pugi::parse_declaration);
  if (!result)
    invalid(fmt::format("the OVF descriptor is not XML: {} at byte {}", result.description(),
                        result.offset));
  return document;
}

pugi::xml_node envelope_of(const pugi::xml_document& document) {
  const pugi::xml_node root = document.document_element();
  if (local(root.name()) != "Envelope")
    invalid("the OVF descriptor is not an envelope but '" + std::string(root.name()) + "'");
  return root;
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '&')
      result += "&amp;";
    else if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (c == '"')
      result += "&quot;";
    else
      result += c;
  }
  return result;
}

// One part of the virtual machine; its elements are in the order of the alphabet, as they must be.
std::string item(const std::vector<std::pair<std::string_view, std::string>>& elements) {
  std::string text = "      <Item>\n";
  for (const auto& [name, content] : elements)
    text += "        <rasd:" + std::string(name) + ">" + escaped(content) +
            "</rasd:" + std::string(name) + ">\n";
  return text + "      </Item>\n";
}

}  // namespace

Envelope Envelope::parse(std::string_view text) {
  const pugi::xml_document document = load(text);
  const pugi::xml_node root = envelope_of(document);
  std::map<std::string, pugi::xml_node> files;
  for (const pugi::xml_node file : child(root, "References").children())
    if (local(file.name()) == "File") files.emplace(value(file, "id"), file);
  Envelope result;
  for (const pugi::xml_node node : section(root, "DiskSection").children()) {
    if (local(node.name()) != "Disk") continue;
    if (result.disks.size() == kMaxDisks)
      invalid(fmt::format("the OVF descriptor has more than {} disks", kMaxDisks));
    Disk disk;
    disk.id = value(node, "diskId");
    disk.format = value(node, "format");
    const auto number = plain_number(value(node, "capacity"));
    const auto unit = unit_bytes(value(node, "capacityAllocationUnits"));
    if (number && unit) disk.capacity = checked_mul(*number, *unit);
    if (!value(node, "parentRef").empty()) disk.unusable = "it depends on another disk (parentRef)";
    const std::string reference = value(node, "fileRef");
    if (!reference.empty()) {
      const auto file = files.find(reference);
      if (file == files.end())
        invalid("the disk '" + disk.id + "' is in the file '" + reference +
                "', which the OVF descriptor does not list");
      disk.file = decoded(value(file->second, "href"));
      const std::string compression = value(file->second, "compression");
      disk.gzip = compression == "gzip";
      if (!compression.empty() && compression != "identity" && !disk.gzip)
        disk.unusable = "its file is compressed (" + compression + "); unpack the archive first";
      if (!value(file->second, "chunkSize").empty())
        disk.unusable = "its file is stored in pieces; unpack the archive and join them first";
      if (disk.file.find("://") != std::string::npos)
        disk.unusable = "its file is elsewhere, at " + disk.file;
    }
    result.disks.push_back(std::move(disk));
  }
  pugi::xml_node machine = child(root, "VirtualSystem");
  if (!machine) machine = child(child(root, "VirtualSystemCollection"), "VirtualSystem");
  result.name = child(machine, "Name").text().get();
  if (result.name.empty()) result.name = value(machine, "id");
  return result;
}

std::string compose(const Appliance& appliance) {
  const auto number = [](uint64_t one) { return std::to_string(one); };
  const std::string name = escaped(appliance.name);
  std::string text =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\""
      " xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\""
      " xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
      "CIM_ResourceAllocationSettingData\""
      " xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
      "CIM_VirtualSystemSettingData\""
      " xmlns:vmw=\"http://www.vmware.com/schema/ovf\""
      " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n"
      "  <References/>\n"
      "  <DiskSection>\n    <Info>The virtual disk</Info>\n    <Disk ovf:capacity=\"" +
      number(appliance.disk_bytes) +
      "\" ovf:capacityAllocationUnits=\"byte\" ovf:diskId=\"vmdisk1\" ovf:format=\"" +
      std::string(kStreamFormat) +
      "\"/>\n  </DiskSection>\n"
      "  <VirtualSystem ovf:id=\"" +
      name + "\">\n    <Info>A virtual machine</Info>\n    <Name>" + name +
      "</Name>\n"
      "    <OperatingSystemSection ovf:id=\"102\" vmw:osType=\"otherGuest64\">\n"
      "      <Info>The guest's operating system</Info>\n    </OperatingSystemSection>\n"
      "    <VirtualHardwareSection>\n      <Info>What the virtual machine needs</Info>\n"
      "      <System>\n        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\n"
      "        <vssd:InstanceID>0</vssd:InstanceID>\n        <vssd:VirtualSystemIdentifier>" +
      name + "</vssd:VirtualSystemIdentifier>\n        <vssd:VirtualSystemType>" +
      escaped(appliance.hardware) + "</vssd:VirtualSystemType>\n      </System>\n";
  const std::string processors = number(appliance.processors);
  const std::string memory = number(appliance.memory_mib);
  text += item({{"AllocationUnits", "hertz * 10^6"},
                {"Description", "Number of virtual CPUs"},
                {"ElementName", processors + " virtual CPU(s)"},
                {"InstanceID", "1"},
                {"ResourceType", "3"},
                {"VirtualQuantity", processors}});
  text += item({{"AllocationUnits", "byte * 2^20"},
                {"Description", "Memory size"},
                {"ElementName", memory + " MB of memory"},
                {"InstanceID", "2"},
                {"ResourceType", "4"},
                {"VirtualQuantity", memory}});
  text += item({{"Address", "0"},
                {"Description", "SCSI controller"},
                {"ElementName", "SCSI controller 0"},
                {"InstanceID", "3"},
                {"ResourceSubType", "lsilogic"},
                {"ResourceType", "6"}});
  text += item({{"AddressOnParent", "0"},
                {"ElementName", "Hard disk 1"},
                {"HostResource", "ovf:/disk/vmdisk1"},
                {"InstanceID", "4"},
                {"Parent", "3"},
                {"ResourceType", "17"}});
  return text + "    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n";
}

std::string with_file(std::string_view text, const DiskFile& content) {
  pugi::xml_document document = load(text);
  const pugi::xml_node root = envelope_of(document);
  const auto set = [](pugi::xml_node node, const char* name, const std::string& to) {
    pugi::xml_attribute there = attribute(node, local(name));
    if (!there) there = node.append_attribute(name);
    there.set_value(to.c_str());
  };
  const std::string id = "file1";
  pugi::xml_node file = child(root, "References").append_child("File");
  set(file, "ovf:href", content.name);
  set(file, "ovf:id", id);
  set(file, "ovf:size", std::to_string(content.bytes));
  pugi::xml_node disk = child(section(root, "DiskSection"), "Disk");
  set(disk, "ovf:fileRef", id);
  set(disk, "ovf:populatedSize", std::to_string(content.populated));
  std::ostringstream out;
  document.save(out, "  ", pugi::format_default, pugi::encoding_utf8);
  return std::move(out).str();
}

std::vector<Digested> parse_manifest(std::string_view text) {
  std::vector<Digested> result;
  while (!text.empty()) {
    std::string line(text.substr(0, text.find('\n')));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (line.empty()) continue;
    const size_t open = line.find('(');
    const size_t close = line.rfind(')');
    const size_t equals = line.find('=', close == std::string::npos ? 0 : close);
    if (open == std::string::npos || close == std::string::npos || close < open ||
        equals == std::string::npos)
      invalid("a line of the manifest cannot be read: '" + line.substr(0, 80) + "'");
    Digested one;
    one.algorithm = line.substr(0, open);
    one.file = line.substr(open + 1, close - open - 1);
    one.digest = line.substr(equals + 1);
    const auto lower = [](std::string& word) {
      std::erase(word, ' ');
      std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) {
        return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
      });
    };
    lower(one.algorithm);
    lower(one.digest);
    result.push_back(std::move(one));
  }
  return result;
}

std::string compose(const std::vector<Digested>& manifest) {
  std::string text;
  for (const Digested& one : manifest) {
    std::string name = one.algorithm;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
      return static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
    });
    text += name + "(" + one.file + ")= " + one.digest + "\n";
  }
  return text;
}

std::string plain_name(std::string_view name) {
  std::string result(name.substr(0, kMaxNameBytes));
  for (char& c : result) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    if (!plain) c = '_';
  }
  // Not hidden, and never the directory above.
  if (result.empty() || result.front() == '.') result.insert(0, "disk");
  return result;
}

}  // namespace cairn::ova
