#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace cairn {
class Context;
}

namespace cairn::operation {

// Reads the configuration file PATH of QEMU's emulator: sections [iscsi] and [iscsi "TARGET"] are
// for disks that are opened from then on, [object "ID"] makes objects. NOTE is called for groups
// that describe a machine. Throws kInvalid, naming file and line, for what makes no sense.
void read_configuration(Context& context, const std::string& path,
                        const std::function<void(std::string_view)>& note);

// Takes DEFINITION, key=value,…, as a section [iscsi "ID"] with the key id.
void add_iscsi_section(Context& context, const std::string& definition);

}  // namespace cairn::operation
