#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// The descriptor of an appliance and its manifest, free of I/O. Source: DMTF DSP0243 (Open
// Virtualization Format), versions 1.1 and 2.1: "OVF Package", "Virtual Disk Formats"
// (DiskSection), "VirtualHardwareSection Element"; the format's URI is VMware's.
namespace cairn::ova {

inline constexpr std::string_view kStreamFormat =
    "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";

// A disk that the descriptor names.
struct Disk {
  std::string id;
  std::string file;                  // member of the archive; empty: the disk has no content
  std::optional<uint64_t> capacity;  // bytes, where it is a plain number
  std::string format;                // an URI
  bool gzip = false;                 // the file is packed
  std::string unusable;              // why its file cannot be read in place; empty: it can
};

struct Envelope {
  std::string name;  // of the first virtual machine
  std::vector<Disk> disks;

  // Reads names whatever their prefixes are. Throws kInvalid for what is no XML, no envelope or has
  // more than 1024 disks.
  static Envelope parse(std::string_view text);
};

// What a fresh descriptor says: one machine with one disk that has no content.
struct Appliance {
  std::string name;
  uint64_t disk_bytes = 0;
  uint64_t processors = 1;
  uint64_t memory_mib = 1024;
  std::string hardware = "vmx-10";
};
std::string compose(const Appliance& appliance);

// The file with the content of a disk.
struct DiskFile {
  std::string name;
  uint64_t bytes = 0;
  uint64_t populated = 0;  // bytes of the disk that are not zeroes
};
// TEXT, whose only disk has no content, with CONTENT.
std::string with_file(std::string_view text, const DiskFile& content);

// A line of a manifest: "SHA256(NAME)= HEX".
struct Digested {
  std::string algorithm;  // "sha256"
  std::string file;
  std::string digest;  // lower-case
};
// Throws kInvalid that names the line.
std::vector<Digested> parse_manifest(std::string_view text);
std::string compose(const std::vector<Digested>& manifest);

// NAME as a member's name that needs no quoting anywhere: other characters become '_'.
std::string plain_name(std::string_view name);

}  // namespace cairn::ova
