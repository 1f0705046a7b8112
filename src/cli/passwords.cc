#include "cli/passwords.h"

#include <algorithm>
#include <cctype>

namespace cairn::cli {
namespace {

constexpr size_t kNone = std::string_view::npos;

// A password with what is around it, without which short ones would be found everywhere.
struct KnownPassword {
  std::string text, shown;
};

std::vector<KnownPassword>& known_passwords() {
  static auto& known = *new std::vector<KnownPassword>;
  return known;
}

std::string_view scheme_before(std::string_view word, size_t end) {
  size_t begin = end;
  while (begin > 0 &&
         (std::isalnum(static_cast<unsigned char>(word[begin - 1])) != 0 || word[begin - 1] == '+'))
    --begin;
  return word.substr(begin, end - begin);
}

void find_in_urls(std::string_view word, std::vector<PasswordPlace>& found) {
  for (size_t at = word.find("://"); at != kNone; at = word.find("://", at + 3)) {
    const std::string_view scheme = scheme_before(word, at);
    const size_t begin = at + 3;
    std::string_view authority = word.substr(begin);
    authority = authority.substr(0, authority.find_first_of("/?#\" "));
    const size_t host = authority.rfind('@');
    if (host == kNone) continue;
    const char mark = scheme == "iscsi" || scheme == "iser" ? '%' : ':';
    const size_t password = authority.substr(0, host).find(mark);
    if (password != kNone && password + 1 < host)
      found.push_back({begin + password + 1, host - password - 1});
  }
}

// From BEGIN to the next STOP; a character after ESCAPE is none, nor is a STOP that is doubled
// where they are the same.
void add_until(std::string_view word, size_t begin, char stop, char escape,
               std::vector<PasswordPlace>& found) {
  size_t end = begin;
  while (end < word.size()) {
    const bool doubled = escape != stop || (end + 1 < word.size() && word[end + 1] == stop);
    if (word[end] == escape && doubled)
      ++end;
    else if (word[end] == stop)
      break;
    ++end;
  }
  end = std::min(end, word.size());
  if (end > begin) found.push_back({begin, end - begin});
}

void find_in_rbd_names(std::string_view word, std::vector<PasswordPlace>& found) {
  constexpr std::string_view kKey = ":key=";
  if (!word.starts_with("rbd:") && word.find("=rbd:") == kNone) return;
  for (size_t at = word.find(kKey); at != kNone; at = word.find(kKey, at + 1))
    add_until(word, at + kKey.size(), ':', '\\', found);
}

void find_in_options(std::string_view word, std::vector<PasswordPlace>& found) {
  constexpr std::string_view kKey = "password";
  for (size_t at = word.find(kKey); at != kNone; at = word.find(kKey, at + 1)) {
    const char before = at == 0 ? ',' : word[at - 1];
    size_t next = at + kKey.size();
    if (next < word.size() && word[next] == '=' && (before == ',' || before == '.')) {
      add_until(word, next + 1, ',', ',', found);
      continue;
    }
    if (before != '"' && before != '.') continue;
    for (const char expected : {'"', ':', '"'}) {
      next = word.find_first_not_of(" \t\n", next);
      next = next == kNone || word[next] != expected ? kNone : next + 1;
      if (next == kNone) break;
    }
    if (next != kNone) add_until(word, next, '"', '\\', found);
  }
}

}  // namespace

std::vector<PasswordPlace> passwords_in(std::string_view word) {
  std::vector<PasswordPlace> found;
  find_in_urls(word, found);
  find_in_rbd_names(word, found);
  find_in_options(word, found);
  return found;
}

void remember_passwords(std::string_view word) {
  constexpr size_t kLongestMark = 16;
  for (const auto& [offset, length] : passwords_in(word)) {
    // From the word or character that says that it is one, to the character that ends it.
    const size_t mark = word[offset - 1] == '=' || word[offset - 1] == '"' ? kLongestMark : 1;
    const size_t begin = offset - std::min(offset, mark);
    const std::string before(word.substr(begin, offset - begin));
    const std::string after(word.substr(offset + length, 1));
    known_passwords().push_back(
        {before + std::string(word.substr(offset, length)) + after, before + "***" + after});
  }
}

std::string conceal(std::string text) {
  for (const auto& [written, shown] : known_passwords())
    for (size_t at = text.find(written); at != kNone; at = text.find(written, at + shown.size()))
      text.replace(at, written.size(), shown);
  return text;
}

}  // namespace cairn::cli
