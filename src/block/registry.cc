#include <algorithm>

#include "block/context.h"
#include "block/driver.h"
#include "block/foreign_content.h"

namespace cairn {

void Driver::parse_filename(std::string_view filename, Options& options) const {
  // "prefix:" is cut off; what follows is taken as it is.
  for (std::string_view prefix : prefixes()) {
    if (filename.size() > prefix.size() && filename.starts_with(prefix) &&
        filename[prefix.size()] == ':') {
      filename.remove_prefix(prefix.size() + 1);
      break;
    }
  }
  options.set("filename", filename);
}

Task<std::shared_ptr<ByteSink>> Driver::upload(Context&, UploadRequest) const {
  throw Error(ErrorKind::kUnsupported,
              "the files of '" + std::string(name()) + "' are not uploaded");
  co_return nullptr;
}

Task<void> Driver::create(Context&, CreateRequest) const {
  throw Error(ErrorKind::kUnsupported,
              std::string(kind() == DriverKind::kProtocol ? "Protocol" : "Format") + " driver '" +
                  std::string(name()) + "' does not support image creation");
  co_return;
}

std::vector<std::pair<std::string, std::string>> Driver::announce(const Options& options,
                                                                  uint64_t size) const {
  std::vector<std::pair<std::string, std::string>> result;
  for (const OptionSpec& spec : create_options()) {
    if (spec.name == "size")
      result.emplace_back("size", std::to_string(size));
    else if (!options.has(spec.name) && !spec.default_text.empty())
      result.emplace_back(spec.name, spec.default_text);
    else if (options.has(spec.name) && spec.type == OptionType::kSize)
      result.emplace_back(spec.name, std::to_string(options.size(spec.name).value_or(0)));
    else if (const auto value = options.string(spec.name))
      result.emplace_back(spec.name, *value);
  }
  return result;
}

bool Driver::shapes_disk(std::string_view) const { return true; }
Task<MeasureResult> Driver::measure(Context&, Options, uint64_t, NodePtr) const {
  throw Error(ErrorKind::kUnsupported,
              "Block driver '" + std::string(name()) + "' does not support size measurement");
  co_return MeasureResult{};
}

void Registry::add(std::unique_ptr<Driver> driver) { drivers_.push_back(std::move(driver)); }

const Driver* Registry::find(std::string_view name) const {
  for (const auto& driver : drivers_)
    if (driver->name() == name) return driver.get();
  return nullptr;
}

const Driver* Registry::find_protocol(std::string_view prefix) const {
  for (const auto& driver : drivers_)
    for (std::string_view own : driver->prefixes())
      if (own == prefix) return driver.get();
  return nullptr;
}

const Driver* Registry::find_device_protocol(const std::string& path) const {
  const Driver* best = nullptr;
  int best_score = 0;
  for (const auto& driver : drivers_) {
    const int score = driver->probe_device(path);
    if (score <= best_score) continue;
    best = driver.get();
    best_score = score;
  }
  return best;
}

std::vector<const Driver*> Registry::all() const {
  std::vector<const Driver*> result;
  for (const auto& driver : drivers_) result.push_back(driver.get());
  std::sort(result.begin(), result.end(),
            [](const Driver* a, const Driver* b) { return a->name() < b->name(); });
  return result;
}

const Driver* Registry::probe(const ProbeInput& input, bool extensions) const {
  const Driver* best = nullptr;
  const Driver* rival = nullptr;
  int best_score = 0;
  for (const auto& driver : drivers_) {
    if (driver->kind() == DriverKind::kProtocol) continue;
    const ProbeResult result = driver->probe(input);
    const int score = result.extension && !extensions ? 0 : result.score;
    if (score > best_score) {
      best = driver.get();
      best_score = score;
      rival = nullptr;
    } else if (score == best_score && score == 100) {
      rival = driver.get();
    }
  }
  if (rival != nullptr)
    throw Error(ErrorKind::kInvalid, "the image looks like both '" + std::string(best->name()) +
                                         "' and '" + std::string(rival->name()) +
                                         "': name its format");
  // Only what nothing else knows may be a container of others.
  if (extensions && best_score <= 1) refuse_foreign_content(input);
  return best;
}

}  // namespace cairn
