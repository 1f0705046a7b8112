#include "operation/amend.h"

#include <algorithm>

#include "async/finally.h"
#include "block/capabilities/amendable.h"
#include "block/driver.h"

namespace cairn::operation {
namespace {

const OptionSpec* find(const OptionSchema& schema, std::string_view key) {
  const auto found = std::find_if(schema.begin(), schema.end(),
                                  [&](const OptionSpec& spec) { return spec.name == key; });
  return found == schema.end() ? nullptr : &*found;
}

void check_amend_options(const Driver& driver, const Options& options) {
  for (const auto& [key, value] : options.items()) {
    const OptionSpec* spec = find(driver.amend_options(), key);
    if (spec == nullptr) {
      Error error(ErrorKind::kInvalid, "Invalid parameter '" + key + "'");
      if (find(driver.create_options(), key) != nullptr)
        error.hint("This option is only supported for image creation");
      throw error;
    }
    check_option(*spec, options);
  }
}

// Version 2 of qcow2 has no place for bitmaps.
void check_bitmaps_stay(const Caller& caller, const Node& node, const AmendRequest& changes) {
  const std::string level = changes.options.string("compat").value_or("");
  if (level != "0.10" && level != "v2") return;
  std::string names;
  for (const DirtyBitmapPtr& bitmap : node.bitmaps().list())
    if (bitmap->persistent())
      names += (names.empty() ? "'" : ", '") + std::string(bitmap->name()) + "'";
  if (names.empty()) return;
  if (caller.guarded && !changes.force)
    throw Error(ErrorKind::kInvalid,
                "compat=0.10 has no dirty bitmaps: " + names + " would be lost")
        .hint("Nothing was changed. The bitmaps can be given up.", "force");
  caller.warn("compat=0.10 has no dirty bitmaps: " + names + " will be lost");
}

}  // namespace

void check_option(const OptionSpec& spec, const Options& given) {
  if (spec.type == OptionType::kBool) given.boolean(spec.name);
  if (spec.type == OptionType::kNumber) given.number(spec.name);
  if (spec.type == OptionType::kSize) given.size(spec.name);
}

Task<std::string> amend(const Caller& caller, OpenRequest request, AmendRequest changes) {
  request.flags.writable = true;
  request.flags.resize = true;
  NodePtr node = co_await open_node(caller.context, std::move(request));
  bool started = false;
  const Driver& driver = node->driver();
  const std::string format(driver.name());
  co_await finally(
      [&]() -> Task<void> {
        if (!driver.offers<Amendable>())
          throw Error(ErrorKind::kUnsupported,
                      "Format driver '" + format + "' does not support option amendment");
        check_amend_options(driver, changes.options);
        check_bitmaps_stay(caller, *node, changes);
        caller.progress(0, 1);
        started = true;
        co_await amend_image(*node, std::move(changes));
      },
      [&] {
        if (started) caller.progress(1, 1);
        return close_all({node});
      });
  co_return format;
}

Task<std::string> format_of_image(Context& context, OpenRequest request) {
  request.flags.metadata_only = true;
  request.flags.no_backing = true;
  NodePtr node = co_await open_node(context, std::move(request));
  const std::string format(node->driver().name());
  co_await node->close();
  co_return format;
}

}  // namespace cairn::operation
