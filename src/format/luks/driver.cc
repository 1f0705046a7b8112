#include "block/driver.h"

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "format/luks/node.h"

namespace cairn {
namespace {

const OptionSchema kOpenOptions = {
    {"key-secret", OptionType::kString, "", "ID of the secret with the passphrase"},
    {"header", OptionType::kString, "", "the file that holds a detached header"},
};

const OptionSchema kCreateOptions = {
    {"cipher-alg", OptionType::kString, "", "Name of encryption cipher algorithm"},
    {"cipher-mode", OptionType::kString, "", "Name of encryption cipher mode"},
    {"detached-header", OptionType::kBool, "", "Create a detached LUKS header"},
    {"hash-alg", OptionType::kString, "", "Name of encryption hash algorithm"},
    {"iter-time", OptionType::kNumber, "", "Time to spend in PBKDF in milliseconds"},
    {"ivgen-alg", OptionType::kString, "", "Name of IV generator algorithm"},
    {"ivgen-hash-alg", OptionType::kString, "", "Name of IV generator hash algorithm"},
    {"key-secret", OptionType::kString, "",
     "ID of the secret that provides the keyslot passphrase"},
    {"size", OptionType::kSize, "", "Virtual disk size"},
};

const OptionSchema kAmendOptions = {
    {"iter-time", OptionType::kNumber, "", "Time to spend in PBKDF in milliseconds"},
    {"keyslot", OptionType::kNumber, "", "Select a single keyslot to modify explicitly"},
    {"new-secret", OptionType::kString, "",
     "New secret to set in the matching keyslots. Empty string to erase"},
    {"old-secret", OptionType::kString, "", "Select all keyslots that match this password"},
    {"state", OptionType::kString, "", "Select new state of affected keyslots (active/inactive)"},
};

constexpr std::string_view kAnnounced[] = {"size",        "key-secret", "cipher-alg",
                                           "cipher-mode", "ivgen-alg",  "ivgen-hash-alg",
                                           "hash-alg",    "iter-time",  "detached-header"};

class LuksDriver : public Driver {
 public:
  LuksDriver()
      : Driver({.name = "luks",
                .title = "encrypted disks, LUKS 1 and 2",
                .abilities = {.create = true, .resize = true},
                .capabilities = LuksNode::Capabilities::ids(),
                .open_options = kOpenOptions,
                .create_options = kCreateOptions,
                .amend_options = kAmendOptions}) {}
  int probe(const ProbeInput& input) const override {
    if (input.head.size() < 8 || load_text(input.head, 0, 6) != luks1::kMagic) return 0;
    const unsigned version = load_be<uint16_t>(input.head, 6);
    // QEMU takes the second version for a raw disk.
    return version == 1 || (version == 2 && input.beyond_qemu) ? 100 : 0;
  }
  bool needs_size(const Options& options) const override {
    return !options.boolean("detached-header").value_or(false);
  }

  std::vector<std::pair<std::string, std::string>> announce(const Options& options,
                                                            uint64_t size) const override {
    std::vector<std::pair<std::string, std::string>> result;
    for (const std::string_view key : kAnnounced) {
      if (key == "size")
        result.emplace_back(key, std::to_string(size));
      else if (const auto value = options.string(key))
        result.emplace_back(key, *value);
    }
    return result;
  }

  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    NodePtr header;
    std::exception_ptr error;
    try {
      if (request.options.has_tree("header")) header = co_await request.open_file("header");
      auto node = std::make_shared<LuksNode>(request.context, *this, file, header);
      co_await node->load(request);
      co_return node;
    } catch (...) {
      error = std::current_exception();
    }
    if (header) co_await header->close();
    co_await file->close();
    std::rethrow_exception(error);
  }

  void check_creation(Context& context, const std::string& filename, uint64_t size,
                      const Options& options) const override {
    passphrase_for(context, options, filename);
    const LuksCreation how = LuksCreation::parse(options);
    if (!how.detached) file_bytes(how, size);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    const Secret& passphrase = passphrase_for(context, request.options, request.filename);
    const LuksCreation how = LuksCreation::parse(request.options);
    if (!how.detached) {
      ResizeRequest whole{.length = file_bytes(how, request.size),
                          .preallocation = request.preallocation,
                          .exact = false};
      if (whole.preallocation == Preallocation::kMetadata)
        whole.preallocation = Preallocation::kOff;
      co_await request.file->resize(whole);
    }
    const LuksArea area{.node = request.file.get()};
    const auto volume = co_await LuksVolume::create(area, how, passphrase);
    if (how.detached) {
      // The unused slots are part of a header's file.
      ResizeRequest whole{.length = how.header_bytes(), .exact = false};
      if (request.file->length() < whole.length) co_await request.file->resize(whole);
    }
  }

  Task<MeasureResult> measure(Context& context, Options options, uint64_t size,
                              NodePtr source) const override {
    passphrase_for(context, options, "the image to be");
    const LuksCreation how = LuksCreation::parse(options);
    const uint64_t bytes = file_bytes(how, source ? source->length() : size);
    co_return MeasureResult{.required = bytes, .fully_allocated = bytes, .bitmaps = std::nullopt};
  }

 private:
  static const Secret& passphrase_for(Context& context, const Options& options,
                                      const std::string& image) {
    return context.secrets().for_image(options, "key-secret", "key-secret", image, true);
  }
  static uint64_t file_bytes(const LuksCreation& how, uint64_t size) {
    const auto end = checked_add(how.header_bytes(), size);
    if (!end || *end > static_cast<uint64_t>(INT64_MAX))
      throw Error(ErrorKind::kTooLarge, "The requested file size is too large");
    return *end;
  }
};

}  // namespace

std::unique_ptr<Driver> make_luks_driver() { return std::make_unique<LuksDriver>(); }

}  // namespace cairn
