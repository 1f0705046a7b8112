#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// One kind of file that a cloud or hypervisor takes.
struct PresetImage {
  std::string_view format;
  std::string_view ending;  // of the target's name
  std::vector<std::pair<std::string_view, std::string_view>> options;
  std::string_view ready;  // what was made, for people
  bool archive = false;    // a tar.gz that holds `disk.raw`
  bool compressed = true;  // -c may be given
  // What the format's own rules for this maker find wrong with the file, a line each; none: the
  // disk in it is looked at.
  Task<std::vector<std::string>> (*findings)(Node& file) = nullptr;
};

// What `convert --for NAME` makes. docs/presets.md has the makers' rules.
struct Preset {
  std::string_view name;
  std::string_view title;
  std::string_view kinds;           // for messages: "VHD images"
  uint64_t unit;                    // the size of the disk is a multiple
  uint64_t most;                    // bytes
  std::vector<PresetImage> images;  // the first one where the name of the target says nothing
};

// All of them, by name.
const std::vector<Preset>& presets();
// The preset NAME. Throws kInvalid with the list of them.
const Preset& find_preset(const std::string& name);

// The image of PRESET for a target called TARGET, or of FORMAT where that is given; BY_NAME is the
// format ("tar.gz" for an archive) that the ending of TARGET implies, empty when it says
// nothing. The options of the image are added to OPTIONS. Throws kInvalid for what the maker does
// not take.
const PresetImage& choose_image(const Preset& preset, const std::string& target,
                                const std::string& by_name,
                                const std::optional<std::string>& format, bool compress,
                                Options& options);

// SIZE as the maker wants it. Throws kTooLarge.
uint64_t size_for(const Preset& preset, uint64_t size);

// Opens the finished, closed target as another program does, and throws what the maker would not
// take.
Task<void> check_for(Context& context, const Preset& preset, const PresetImage& image,
                     OpenRequest target);

}  // namespace cairn::operation
