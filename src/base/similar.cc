#include "base/similar.h"

#include <algorithm>

namespace cairn {
namespace {

constexpr size_t kLongest = 64;  // longer words are not compared

// Insertions, deletions, replacements and exchanges of neighbours that make B of A.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1);
  std::vector<size_t> above(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(above);
    above.swap(row);
  }
  return above[b.size()];
}

}  // namespace

std::string closest_name(std::string_view word, const std::vector<std::string>& known) {
  if (word.size() < 2 || word.size() > kLongest) return {};
  std::vector<std::string_view> longer;
  for (const std::string& name : known)
    if (name.starts_with(word)) longer.push_back(name);
  if (longer.size() == 1 && word.size() >= 3) return std::string(longer.front());
  std::string best;
  size_t fewest = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& name : known) {
    if (name.size() > kLongest) continue;
    const size_t changes = distance(word, name);
    // A name of which nothing stays is no guess.
    if (changes >= fewest || changes >= std::max(word.size(), name.size())) continue;
    fewest = changes;
    best = name;
  }
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::string name = closest_name(word, known);
  return name.empty() ? "" : "; did you mean '" + name + "'?";
}

}  // namespace cairn
