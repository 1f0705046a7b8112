#include "block/machine_directory.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "block/extent_name.h"
#include "platform/file.h"

namespace cairn {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostEntries = 4096;
constexpr size_t kMostListed = 20;
constexpr size_t kMostMachineBytes = 1 << 20;

// FOLDED ends with one of ENDINGS.
bool has_ending(const std::string& folded, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](std::string_view ending) { return folded.ends_with(ending); });
}

std::string folded(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// Extents, and the blocks that changed since a backup.
bool is_part_of_vmdk(const std::string& name) {
  return !descriptor_of_extent(name).empty() || name.ends_with("-ctk.vmdk");
}

// The disks that the machine in DIRECTORY, of the kind that ENDING names, keeps in PLACE.
void add_disks(const fs::path& place, const std::string& ending, std::vector<std::string>& disks) {
  std::error_code error;
  size_t seen = 0;
  for (fs::directory_iterator at(place, error), end; !error && at != end && seen < kMostEntries;
       at.increment(error), ++seen) {
    const std::string name = folded(at->path().filename().string());
    const auto status = platform::link_status(at->path().string());
    if (!status) continue;
    const bool file = status->is_regular();
    const bool wanted =
        ending == ".pvm" ? status->is_directory() && name.ends_with(".hdd")
        : ending == ".utm"
            ? file && has_ending(name, {".qcow2", ".img", ".raw", ".vmdk", ".vdi", ".vhdx"})
            : file && name.ends_with(".vmdk") && !is_part_of_vmdk(name);
    if (wanted) disks.push_back(at->path().string());
  }
}

bool is_sparse_bundle(const std::string& path, const std::string& ending) {
  std::error_code error;
  return ending == ".sparsebundle" || (fs::is_directory(fs::path(path) / "bands", error) &&
                                       fs::is_regular_file(fs::path(path) / "Info.plist", error));
}

[[noreturn]] void refuse_machine(const std::string& path, const std::vector<std::string>& disks) {
  Error error(ErrorKind::kInvalid,
              disks.empty() ? "'" + path + "' is a virtual machine without a disk of its own"
                            : "'" + path + "' is a virtual machine; open one of its disks");
  for (size_t i = 0; i < disks.size() && i < kMostListed; ++i) error.hint(disks[i]);
  throw error;
}

// The locations of hard disks in the machine's file of VirtualBox.
std::vector<std::string> named_disks(const std::string& path) {
  std::ifstream in(fs::path(path), std::ios::binary);
  std::string text(kMostMachineBytes, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  std::vector<std::string> disks;
  if (text.find("<VirtualBox") == std::string::npos) return disks;
  constexpr std::string_view kKey = "location=\"";
  for (size_t at = text.find("<HardDisk "); at != std::string::npos;
       at = text.find("<HardDisk ", at + 1)) {
    const size_t key = text.find(kKey, at);
    const size_t end = text.find('>', at);
    if (key == std::string::npos || key > end) continue;
    const size_t begin = key + kKey.size();
    disks.push_back(text.substr(begin, text.find('"', begin) - begin));
  }
  return disks;
}

}  // namespace

std::string disk_of_machine(const Context& context, const std::string& path) {
  std::string plain = path;
  while (plain.size() > 1 && plain.ends_with('/')) plain.pop_back();
  const std::string ending = folded(fs::path(plain).extension().string());
  const auto status = platform::status(plain);
  if (!status) return {};
  if (ending == ".vbox" && status->is_regular()) {
    const std::vector<std::string> disks = named_disks(plain);
    if (!disks.empty()) refuse_machine(path, disks);
    return {};
  }
  if (status->is_directory() && is_sparse_bundle(plain, ending))
    throw Error(ErrorKind::kUnsupported,
                "'" + path + "' is a sparse bundle of macOS, a disk in many files")
        .hint("On a Mac, convert it first: hdiutil convert DIRECTORY -format UDTO -o NEW");
  if (!status->is_directory() || !has_ending(ending, {".utm", ".vmwarevm", ".pvm"})) return {};
  std::vector<std::string> disks;
  add_disks(plain, ending, disks);
  if (ending == ".utm")
    for (const char* inside : {"Data", "Images"})
      add_disks(fs::path(plain) / inside, ending, disks);
  std::sort(disks.begin(), disks.end());
  if (disks.size() != 1) refuse_machine(path, disks);
  return image_in_folder(context, disks.front());
}

}  // namespace cairn
