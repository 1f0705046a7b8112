#include "block/foreign_content.h"

#include <algorithm>
#include <cstring>

#include "block/extent_name.h"

namespace cairn {
namespace {

struct Foreign {
  size_t offset;
  std::string_view magic;
  std::string_view what;
  std::string_view advice;
};

using namespace std::string_view_literals;

constexpr std::string_view kUnzip = "Unpack it first: unzip FILE";
constexpr std::string_view kAppleConvert =
    "On a Mac, convert it first: hdiutil convert FILE -format UDTO -o NEW";
constexpr std::string_view kUnpack7z = "Unpack it first: 7z x FILE";
constexpr std::string_view kUntar = "Unpack it first: tar -xf FILE";

constexpr Foreign kForeign[] = {
    {0, "PK\x03\x04"sv, "a zip archive", kUnzip},
    {0, "PK\x05\x06"sv, "a zip archive", kUnzip},
    {0, "PK\x07\x08"sv, "a zip archive", kUnzip},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7-Zip archive", kUnpack7z},
    {0, "Rar!\x1a\x07"sv, "a RAR archive", "Unpack it first: unrar x FILE"},
    {257, "ustar"sv, "a tar archive", kUntar},
    {0, "\x04\x22\x4d\x18"sv, "compressed with lz4", "Unpack it first: lz4 -d FILE NEW"},
    {0, "\x89LZO\0\r\n\x1a\n"sv, "compressed with lzop", "Unpack it first: lzop -d FILE"},
    {0, "LZIP\x01"sv, "compressed with lzip", "Unpack it first: lzip -d FILE"},
    {0, "shdw\0\0\0\x01"sv, "an Apple sparse image (ASIF)",
     "On a Mac, convert it first: diskutil image create from --format RAW FILE NEW"},
    {0, "sprs\0\0\0"sv, "a sparse image of macOS", kAppleConvert},
    {0, "VMA\0"sv, "a Proxmox backup (VMA)",
     "Extract the disks first, on Proxmox VE: vma extract FILE DIRECTORY"},
    {0, "MSWIM\0\0\0"sv, "a Windows image archive (WIM)",
     "It holds files, not a disk: see wimlib-imagex"},
    {0, "EVF\x09\x0d\x0a\xff\0"sv, "an EnCase image (E01)",
     "Export the disk first: ewfexport -f raw FILE"},
    {0, "partclone-image"sv, "a partclone image",
     "Restore it first: partclone.restore -C -s FILE -O NEW"},
    {0, "\x3a\xff\x26\xed"sv, "an Android sparse image", "Expand it first: simg2img FILE NEW"},
};

bool has_ending(std::string_view name, std::string_view ending) {
  return name.size() > ending.size() &&
         std::equal(ending.rbegin(), ending.rend(), name.rbegin(),
                    [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + 32 : b); });
}

[[noreturn]] void refuse(const ProbeInput& input, std::string_view what, std::string_view advice) {
  throw Error(ErrorKind::kUnsupported, "'" + std::string(input.filename) + "' is " +
                                           std::string(what) + ", not a disk image")
      .hint(std::string(advice) + "\nTo read the bytes of the file as they are, give -f raw.");
}

// A flat extent has no mark: only its name shows that its disk may be larger, or another one.
void refuse_extent(const ProbeInput& input) {
  const std::string name(input.filename);
  if (!has_ending(name, ".vmdk") || descriptor_of_extent(name).empty()) return;
  throw Error(ErrorKind::kUnsupported,
              "'" + name + "' is one extent of a VMDK disk, by its name; " + extent_advice(name))
      .hint("To read the bytes of the file as they are, give -f raw.");
}

}  // namespace

void refuse_foreign_content(const ProbeInput& input) {
  const std::string_view head(reinterpret_cast<const char*>(input.head.data()), input.head.size());
  for (const Foreign& known : kForeign)
    if (head.substr(std::min(known.offset, head.size())).starts_with(known.magic))
      refuse(input, known.what, known.advice);
  // Veeam's backups have no signature that is published.
  for (const std::string_view ending : {".vbk", ".vib", ".vrb"})
    if (has_ending(input.filename, ending) && input.length != 0)
      refuse(input, "a Veeam backup", "Restore the disk with Veeam's own tools first.");
  refuse_extent(input);
}

}  // namespace cairn
