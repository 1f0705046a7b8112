#include "platform/directory.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

namespace cairn::platform {

int make_directory(const std::string& path, unsigned mode) {
  return ::mkdir(path.c_str(), static_cast<mode_t>(mode));
}

int remove_directory(const std::string& path) { return ::rmdir(path.c_str()); }

std::string absolute(const std::string& path) {
  std::string whole = std::filesystem::absolute(path).lexically_normal();
  while (whole.size() > 1 && whole.ends_with('/')) whole.pop_back();
  return whole;
}

std::string unfit_name(const std::string&) { return {}; }

const std::u16string_view kForbiddenInNames;
size_t last_separator(std::string_view path) { return path.rfind('/'); }
bool is_absolute(std::string_view path) { return path.starts_with('/'); }
bool has_drive(std::string_view) { return false; }

}  // namespace cairn::platform
