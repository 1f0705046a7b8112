#include "format/split/pieces.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "platform/file.h"

namespace cairn::split {
namespace {

namespace fs = std::filesystem;

// The number at the end of NAME: a dot and three digits.
std::optional<unsigned> piece_number(std::string_view name) {
  if (name.size() < 5 || name[name.size() - 4] != '.') return std::nullopt;
  unsigned number = 0;
  for (const char c : name.substr(name.size() - 3)) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<unsigned>(c - '0');
  }
  return number;
}

std::string numbered(std::string_view name, unsigned number) {
  char text[8];
  std::snprintf(text, sizeof text, "%03u", number);
  return std::string(name.substr(0, name.size() - 3)) + text;
}

bool is_plain_file(const std::string& path) { return platform::is_regular_file(path); }

// The highest number of a file that is called like NAME. Throws what the system says.
unsigned last_piece(const std::string& name) {
  const fs::path path(name);
  const std::string stem = path.stem().string();
  unsigned last = 0;
  std::error_code error;
  const fs::path directory = path.parent_path().empty() ? "." : path.parent_path();
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    const std::string other = at->path().filename().string();
    const auto number = piece_number(other);
    if (number && at->path().stem() == stem) last = std::max(last, *number);
  }
  if (error) throw Error::system(error.value(), directory.string());
  return last;
}

}  // namespace

bool is_piece(std::string_view filename) {
  const auto number = piece_number(filename);
  if (!number) return false;
  if (*number > 1) return is_plain_file(numbered(filename, 1));
  if (is_plain_file(numbered(filename, *number + 1)) ||
      (*number == 1 && is_plain_file(numbered(filename, 0))))
    return true;
  try {
    return last_piece(std::string(filename)) > *number;
  } catch (const Error&) {
    return false;
  }
}

std::vector<std::string> pieces_of(const std::string& first) {
  const auto number = piece_number(first);
  if (!number)
    invalid("'" + first +
            "' is not a piece of a split disk: its name does not end with .001 or .000");
  unsigned begin = *number;
  if (begin != 0 && is_plain_file(numbered(first, 0)))
    begin = 0;
  else if (begin > 1)
    begin = 1;
  if (begin != *number)
    invalid("this is a piece of a split disk; open the first one ('" + numbered(first, begin) +
            "')");
  std::vector<std::string> pieces;
  const unsigned last = last_piece(first);
  for (unsigned at = begin; at <= last; ++at) {
    pieces.push_back(numbered(first, at));
    if (!is_plain_file(pieces.back()))
      invalid("piece '" + pieces.back() + "' of the split disk is missing");
  }
  return pieces;
}

uint64_t bytes_of_piece(const std::string& piece) {
  const auto status = platform::status(piece);
  if (!status) throw Error::system(errno, "Could not read the size of '" + piece + "'");
  return status->size;
}

}  // namespace cairn::split
