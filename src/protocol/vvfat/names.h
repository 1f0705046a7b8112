#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "protocol/vvfat/layout.h"

namespace cairn::vvfat {

// The long name that FAT shows for HOST_NAME: UTF-16, and each character that FAT forbids (and a
// dot or space at the end) replaced by one of the private-use characters U+F001 to U+F029 that
// Services for Macintosh, Samba and the CIFS client use for it. Nothing when HOST_NAME is not
// UTF-8.
std::optional<std::u16string> shown_name(std::string_view host_name);

// SHOWN as UTF-8, as it is: for messages and for short names.
std::string utf8_of(std::u16string_view shown);

// Names that FAT takes for the same have the same folded form.
std::u16string folded(std::u16string_view name);

// What a file is called on the host when a guest calls it SHOWN: the reverse of shown_name().
// Nothing when no file may have that name: characters that FAT forbids, no text, `.`, `..`, or
// longer than 255 bytes.
std::optional<std::string> host_name(std::u16string_view shown);

// NAME with its dot; characters beyond ASCII are those of code page 437. CASE_FLAGS as in
// DirectoryEntry.
std::u16string short_text(const ShortName& name, uint8_t case_flags);

// As text for messages.
std::string printable(const ShortName& name);

// What a host name becomes in eight and three characters.
struct MangledName {
  std::string base;       // at most 8
  std::string extension;  // at most 3
  bool lossy = false;     // something was left out
  ShortName name() const;
};
MangledName mangle(std::string_view host_name);

// The short names of one directory.
class ShortNames {
 public:
  // False when NAME is taken already.
  bool take(const ShortName& name);
  // MANGLED with the first free "~number".
  ShortName take_numbered(const MangledName& mangled);

 private:
  std::unordered_set<std::string> taken_;
  std::unordered_map<std::string, uint32_t> next_;  // by what stands around the number
};

}  // namespace cairn::vvfat
