#include "block/driver.h"

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/open_format.h"
#include "format/qcow/node.h"

namespace cairn {

using namespace qcow;

namespace {

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"backing_file", OptionType::kString, "", "File name of a base image"},
    {"backing_fmt", OptionType::kString, "", "Format of the backing image"},
    {"encryption", OptionType::kBool, "",
     "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
    {"encrypt.format", OptionType::kString, "", "Encrypt the image, format choices: 'aes'"},
    {"encrypt.key-secret", OptionType::kString, "",
     "ID of the secret that provides the AES encryption key"},
};

// Whether the options ask for an encrypted image.
bool wants_encryption(const Options& options) {
  const bool old_switch = options.boolean("encryption").value_or(false);
  const auto format = options.string("encrypt.format");
  if (old_switch && format)
    invalid("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  if (format && *format != "aes" && *format != "qcow") invalid("Unsupported encryption format");
  return old_switch || format;
}

const Secret& key_of(Context& context, const Options& options, const std::string& image) {
  return context.secrets().for_image(options, "encrypt.key-secret", "encrypt.key-secret", image,
                                     true);
}

const std::vector<Sample> kSamples = {
    {.name = "default", .crash = Sample::Crash::kClean, .exchanged = true},
    {.name = "encrypted",
     .options = "encrypt.format=aes,encrypt.key-secret=s0",
     .open_options = "encrypt.key-secret=s0"},
};

class QcowDriver : public FormatDriver<QcowNode> {
 public:
  QcowDriver()
      : FormatDriver({.name = "qcow",
                      .title = "QEMU copy-on-write, version 1",
                      .endings = {"qcow"},
                      .page = "formats/qcow.md",
                      .abilities = {.create = true},
                      .extensions = {.check = true},
                      .create_options = kCreateOptions,
                      .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score = input.head.size() >= kHeaderBytes &&
                             load_be<uint32_t>(input.head, 0) == kMagic &&
                             load_be<uint32_t>(input.head, 4) == 1
                         ? 100
                         : 0};
  }

  void check_creation(Context& context, const std::string& filename, uint64_t,
                      const Options& options) const override {
    if (wants_encryption(options)) key_of(context, options, filename);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    const std::string name = request.options.string("backing_file").value_or("");
    Header header = Header::fresh(request.size, name);
    if (wants_encryption(request.options)) {
      // That there is a key is all that matters: nothing of it is stored.
      key_of(context, request.options, request.filename);
      header.crypt_method = kAes;
    }
    std::vector<std::byte> head(header.l1_offset);
    header.encode(head);
    const ByteSpan text = bytes_of(name);
    std::copy(text.begin(), text.end(), head.begin() + kHeaderBytes);
    co_await request.file->write(0, head);
    const uint64_t table = align_up(header.l1_entries() * 8, kSector);
    if (request.file->reads_zero_when_created())
      co_await request.file->resize({.length = header.l1_offset + table, .exact = false});
    else
      co_await request.file->write_zeroes(header.l1_offset, table);
  }
};

}  // namespace

std::unique_ptr<Driver> make_qcow_driver() { return std::make_unique<QcowDriver>(); }

}  // namespace cairn
