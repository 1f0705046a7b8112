#include "block/driver.h"

#include <algorithm>

#include "async/finally.h"
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
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"key-secret", OptionType::kString, "",
     "ID of the secret that provides the keyslot passphrase"},
    {"cipher-alg", OptionType::kString, "", "Name of encryption cipher algorithm"},
    {"cipher-mode", OptionType::kString, "", "Name of encryption cipher mode"},
    {"ivgen-alg", OptionType::kString, "", "Name of IV generator algorithm"},
    {"ivgen-hash-alg", OptionType::kString, "", "Name of IV generator hash algorithm"},
    {"hash-alg", OptionType::kString, "", "Name of encryption hash algorithm"},
    {"iter-time", OptionType::kNumber, "", "Time to spend in PBKDF in milliseconds"},
    {"detached-header", OptionType::kBool, "", "Create a detached LUKS header"},
};

const OptionSchema kAmendOptions = {
    {"iter-time", OptionType::kNumber, "", "Time to spend in PBKDF in milliseconds"},
    {"keyslot", OptionType::kNumber, "", "Select a single keyslot to modify explicitly"},
    {"new-secret", OptionType::kString, "",
     "New secret to set in the matching keyslots. Empty string to erase"},
    {"old-secret", OptionType::kString, "", "Select all keyslots that match this password"},
    {"state", OptionType::kString, "", "Select new state of affected keyslots (active/inactive)"},
};

const std::vector<Sample> kSamples = {
    {.name = "aes_xts",
     .options = "key-secret=s0,iter-time=0,cipher-alg=aes-256,cipher-mode=xts",
     .open_options = "key-secret=s0",
     .zeroed = false},
    {.name = "serpent_cbc",
     .options = "key-secret=s0,iter-time=0,cipher-alg=serpent-192,cipher-mode=cbc,ivgen-alg=essiv",
     .open_options = "key-secret=s0",
     .zeroed = false},
    {.name = "twofish_ctr",
     .options = "key-secret=s0,iter-time=0,cipher-alg=twofish-192,cipher-mode=ctr,ivgen-alg=plain",
     .open_options = "key-secret=s0",
     .zeroed = false},
    {.name = "cast5_cbc",
     .options = "key-secret=s0,iter-time=0,cipher-alg=cast5-128,cipher-mode=cbc",
     .open_options = "key-secret=s0",
     .zeroed = false},
};

class LuksDriver : public Driver {
 public:
  LuksDriver()
      : Driver({.name = "luks",
                .title = "encrypted disks, LUKS 1 and 2",
                .endings = {"luks"},
                .page = "formats/luks.md",
                .abilities = {.create = true, .resize = true},
                .capabilities = LuksNode::Capabilities::ids(),
                .open_options = kOpenOptions,
                .create_options = kCreateOptions,
                .amend_options = kAmendOptions,
                .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    if (input.head.size() < 8 || load_text(input.head, 0, 6) != luks1::kMagic) return {.score = 0};
    const unsigned version = load_be<uint16_t>(input.head, 6);
    return {.score = version == 1 || version == 2 ? 100 : 0, .extension = version == 2};
  }
  bool needs_size(const Options& options) const override {
    return !options.boolean("detached-header").value_or(false);
  }

  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    NodePtr header;
    NodePtr result = co_await on_failure(
        [&]() -> Task<NodePtr> {
          if (request.options.has_tree("header")) header = co_await request.open_file("header");
          auto node = std::make_shared<LuksNode>(request.context, *this, file, header);
          co_await node->load(request);
          co_return node;
        },
        [&]() -> Task<void> {
          if (header) co_await header->close();
          co_await file->close();
        });
    co_return result;
  }

  void check_creation(Context& context, const std::string& filename, uint64_t size,
                      const Options& options) const override {
    passphrase_for(context, options, filename);
    const LuksCreation how = LuksCreation::parse(options);
    if (!how.detached) file_bytes(how, size);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    const Secret& passphrase = passphrase_for(context, request.options, request.filename);
    LuksCreation how = LuksCreation::parse(request.options);
    NodePtr payload = how.detached ? nullptr : request.file;
    NodePtr header = request.file;
    if (request.parts && !request.parts->empty()) {
      how.detached = true;
      header = request.parts->at("header");
    }
    if (!header) invalid("Either the parameter 'header' or 'file' must be specified");
    if (payload) {
      ResizeRequest whole{.length = how.detached ? request.size : file_bytes(how, request.size),
                          .preallocation = request.preallocation,
                          .exact = false};
      if (whole.preallocation == Preallocation::kMetadata)
        whole.preallocation = Preallocation::kOff;
      co_await payload->resize(whole);
    }
    const LuksArea area{.node = header.get()};
    const auto volume = co_await LuksVolume::create(area, how, passphrase);
    if (how.detached) {
      // The unused slots are part of a header's file.
      ResizeRequest whole{.length = how.header_bytes(), .exact = false};
      if (header->length() < whole.length) co_await header->resize(whole);
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
