#pragma once

#include <string>
#include <string_view>

#include "platform/types.h"

namespace cairn::platform {

// For its owner only.
int make_directory(const std::string& path, unsigned mode = 0700);
// An empty one.
int remove_directory(const std::string& path);

// A file in DIRECTORY that goes with its last descriptor, and which nobody else sees where the
// system can do that.
int open_unnamed(const std::string& directory);
// A name by which this process can open the file of FD again, made by open_unnamed().
std::string unnamed_path(int fd);

// Characters besides "/" and zero that names of files cannot have.
extern const std::u16string_view kForbiddenInNames;
// Why the system has no file of the name PATH, in words for messages; empty: it may.
std::string unfit_name(const std::string& path);
// Where the last separator of directories in PATH is; npos: there is none.
size_t last_separator(std::string_view path);
// What stands before the last part of PATH: with its separator, "." where there is none.
std::string directory_of(std::string_view path);
// PATH from the root, without "." and "..", and without a separator at its end; links in it stay.
std::string absolute(const std::string& path);
// Whether PATH begins at a root.
bool is_absolute(std::string_view path);
// Whether PATH begins with a drive, as "d:" does on Windows.
bool has_drive(std::string_view path);

}  // namespace cairn::platform
