#include <fmt/core.h>

#include <vector>

#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "crypto/cipher.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

namespace {

constexpr uint32_t kAes = 1;
constexpr uint32_t kLuks = 2;
// Eight slots of the longest keys take far less.
constexpr uint64_t kMostLuksBytes = 64 << 20;

}  // namespace

// --- creation ---

EncryptionPlan EncryptionPlan::parse(const Options& options) {
  EncryptionPlan result;
  Options own = options;
  const bool old_switch = options.boolean("encryption").value_or(false);
  Options tree = own.take_tree("encrypt");
  auto format = tree.string("format");
  if (old_switch && format)
    invalid("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  if (old_switch) format = "aes";
  if (!format) {
    if (!tree.empty()) invalid("Parameter 'encrypt.format' is missing");
    return result;
  }
  if (*format != "aes" && *format != "luks")
    invalid("Parameter 'format' does not accept value '" + *format + "'");
  tree.erase("format");
  if (*format == "luks") {
    result.method = kLuks;
    result.luks = LuksCreation::parse(tree);
    return result;
  }
  result.method = kAes;
  for (const auto& [key, value] : tree.items())
    if (key != "key-secret") invalid("Parameter 'encrypt." + key + "' is unexpected");
  return result;
}

uint64_t EncryptionPlan::header_bytes() const { return method == kLuks ? luks.header_bytes() : 0; }

const Secret& encryption_secret(Context& context, const Options& options, const std::string& image,
                                bool create) {
  return context.secrets().for_image(options, "encrypt.key-secret", "encrypt.key-secret", image,
                                     create);
}

// The area is whole before the header names it.
Task<void> Qcow2Node::make_encryption(EncryptionPlan how, const Secret& passphrase) {
  if (how.method == kLuks) {
    const uint64_t clusters = div_ceil(how.header_bytes(), cluster());
    bool virgin = false;
    const uint64_t offset = co_await allocate(clusters, &virgin);
    co_await file_->write_zeroes(offset, clusters * cluster());
    const LuksArea area{.node = file_, .offset = offset, .length = how.header_bytes()};
    luks_ = co_await LuksVolume::create(area, how.luks, passphrase);
    extensions_.crypto = {offset, how.header_bytes()};
  }
  co_await flush_mapped();
  header_.crypt_method = how.method;
  co_await write_header();
}

// The header goes as it is, key slots and all: its offsets count from its own start.
Task<void> Qcow2Node::adopt_encryption(Node& source) {
  auto* from = dynamic_cast<Qcow2Node*>(&source);
  if (from == nullptr || !from->encrypted() || encrypted()) throw Error::system(ENOTSUP);
  if (from->luks_) {
    const auto [begin, length] = *from->extensions_.crypto;
    const uint64_t file_end = align_up(from->file_->length(), from->cluster());
    if (begin >= file_end || length > file_end - begin || length > kMostLuksBytes)
      invalid(fmt::format("{}: the encryption header of {} bytes at {} cannot be copied",
                          from->filename(), length, begin));
    std::vector<std::byte> bytes(align_up(length, cluster()));
    co_await from->file_->read(begin, MutableByteSpan(bytes).first(length));
    const uint64_t place = co_await allocate(bytes.size() / cluster());
    co_await file_->write(place, bytes);
    const LuksArea area{.node = file_, .offset = place, .length = length};
    luks_ = co_await LuksVolume::read(area, false);
    extensions_.crypto = {place, length};
  }
  co_await flush_mapped();
  header_.crypt_method = from->header_.crypt_method;
  co_await write_header();
  share_payload_cipher(*from);
}

// --- opening ---

Task<void> Qcow2Node::open_encryption(OpenContext& request) {
  const auto format = request.options.string("encrypt.format");
  if (header_.crypt_method == 0) {
    if (format)
      invalid("No encryption in image header, but options specified format '" + *format + "'");
    co_return;
  }
  const std::string found = header_.crypt_method == kAes ? "aes" : "luks";
  if (format && *format != found)
    invalid("Header reported '" + found + "' encryption format but options specify '" + *format +
            "'");
  if (header_.crypt_method == kLuks) {
    const auto [offset, length] = *extensions_.crypto;
    const auto end = checked_add(offset, length);
    if (!end || *end > static_cast<uint64_t>(INT64_MAX))
      invalid(
          fmt::format("Encryption header of {} bytes at {} is outside every file", length, offset));
    const LuksArea area{.node = file_, .offset = offset, .length = length};
    luks_ = co_await LuksVolume::read(area, false);
  }
  if (metadata_only_) co_return;
  const Secret& passphrase =
      encryption_secret(context(), request.options, file_->filename(), false);
  if (luks_) {
    co_await luks_->unlock(passphrase);
    set_payload_cipher(luks_->cipher(), CipherOffset::kHost);
  } else {
    set_payload_cipher(make_legacy_aes(bytes_of(passphrase.bytes())), CipherOffset::kGuest);
  }
}

Value Qcow2Node::encryption_info() const {
  Value data = Value::object();
  data.set("format", header_.crypt_method == kAes ? "aes" : "luks");
  if (luks_) luks_->describe(data);
  return data;
}

// --- key slots ---

Task<void> Qcow2Node::amend_encryption(const AmendRequest& request) {
  if (!luks_) invalid("Only LUKS encryption options can be amended");
  Options options = request.options;
  const Options slots = options.take_tree("encrypt");
  co_await luks_->amend(context(), slots, request.force);
}

}  // namespace cairn
