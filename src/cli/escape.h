#pragma once

#include <string>
#include <string_view>

namespace cairn::cli {

// Names and texts come out of images: what would move the cursor, colour the terminal or begin a
// line of its own is shown as \xNN to people, and passwords of the command line as ***. Under
// QEMU's names text stays as it is.
void set_escaping(bool on);
// A name or another text that is part of a line.
std::string shown(std::string_view text);
// Whole lines: newlines and tabs stay.
std::string shown_lines(std::string_view text);

}  // namespace cairn::cli
