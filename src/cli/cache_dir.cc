#include "cli/cache_dir.h"

#include <algorithm>
#include <cstring>

namespace cairn::cli {
namespace {

enum CacheId : int { kCacheDir = 291, kCacheSize, kCacheTrust };

}  // namespace

const std::vector<Flag>& cache_flags() {
  static const std::vector<Flag> flags = {
      {kCacheDir, "cache-dir", "DIR", "keep in DIR what is read of images on servers"},
      {kCacheSize, "cache-size", "SIZE", "how much DIR may take (10G, or half of what is free)"},
      {kCacheTrust, "cache-trust-name", nullptr,
       "keep images as well whose server does not say when they change"},
  };
  return flags;
}

void use_cache(Session& session, const Arguments& arguments) {
  const auto directory = arguments.value(kCacheDir);
  const auto size = arguments.value(kCacheSize);
  const bool trusts = arguments.has(kCacheTrust);
  if (!directory) {
    if (size) throw UsageError{"--cache-size belongs to --cache-dir"};
    if (trusts) throw UsageError{"--cache-trust-name belongs to --cache-dir"};
    return;
  }
  if (directory->empty()) throw UsageError{"--cache-dir needs the name of a directory"};
  auto& cache = session.context.server_cache;
  cache.directory = *directory;
  if (size) cache.size = size_argument(session, *size, "cache size", 16 << 20);
  cache.trust_names = trusts;
}

void take_cache(Session& session, std::vector<char*>& words) {
  std::vector<char*> ours = {words.front()};
  for (size_t i = 1; i < words.size() && std::strcmp(words[i], "--") != 0;) {
    const std::string_view word = words[i];
    const auto flag =
        std::find_if(cache_flags().begin(), cache_flags().end(), [&](const Flag& each) {
          const std::string name = std::string("--") + each.long_name;
          return word == name || word.starts_with(name + "=");
        });
    if (flag == cache_flags().end()) {
      ++i;
      continue;
    }
    const bool value = flag->value_name != nullptr && word.find('=') == std::string_view::npos;
    if (value && i + 1 == words.size()) throw UsageError{std::string(word) + " needs a value"};
    const auto at = words.begin() + static_cast<std::ptrdiff_t>(i);
    ours.insert(ours.end(), at, at + (value ? 2 : 1));
    words.erase(at, at + (value ? 2 : 1));
  }
  const int count = static_cast<int>(ours.size());
  ours.push_back(nullptr);
  use_cache(session, Arguments::parse(cache_flags(), count, ours.data(), LongNames::kWhole));
}

}  // namespace cairn::cli
