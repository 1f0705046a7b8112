#include "block/driver.h"

#include <algorithm>

#include "base/arith.h"
#include "block/capabilities/bitmap_store.h"
#include "block/context.h"
#include "block/new_file.h"
#include "block/open_format.h"
#include "block/work_report.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

namespace {

const OptionSchema kOpenOptions = {
    {"lazy-refcounts", OptionType::kBool, "",
     "refcounts may be written late; the image is marked dirty meanwhile"},
    {"pass-discard-request", OptionType::kBool, "", "pass discards of the guest to the file"},
    {"pass-discard-snapshot", OptionType::kBool, "on",
     "pass discards of deleted snapshots to the file"},
    {"pass-discard-other", OptionType::kBool, "off",
     "pass discards of other freed clusters to the file"},
    {"discard-no-unref", OptionType::kBool, "off", "discarded clusters keep their space"},
    {"overlap-check", OptionType::kString, "cached", "none, constant, cached or all"},
    {"cache-size", OptionType::kSize, "", "memory for L2 tables and refcounts"},
    {"l2-cache-size", OptionType::kSize, "", "memory for L2 tables"},
    {"l2-cache-entry-size", OptionType::kSize, "", "size of a piece of an L2 table in memory"},
    {"refcount-cache-size", OptionType::kSize, "", "memory for refcounts"},
    {"cache-clean-interval", OptionType::kNumber, "600",
     "seconds after which unused tables leave memory, 0: never"},
};

const OptionSchema kCreateOptions = {
    {"encryption", OptionType::kBool, "",
     "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
    {"encrypt.format", OptionType::kString, "", "Encrypt the image, format choices: 'aes', 'luks'"},
    {"encrypt.key-secret", OptionType::kString, "",
     "ID of secret providing qcow AES key or LUKS passphrase"},
    {"encrypt.cipher-alg", OptionType::kString, "", "Name of encryption cipher algorithm"},
    {"encrypt.cipher-mode", OptionType::kString, "", "Name of encryption cipher mode"},
    {"encrypt.ivgen-alg", OptionType::kString, "", "Name of IV generator algorithm"},
    {"encrypt.ivgen-hash-alg", OptionType::kString, "", "Name of IV generator hash algorithm"},
    {"encrypt.hash-alg", OptionType::kString, "", "Name of encryption hash algorithm"},
    {"encrypt.iter-time", OptionType::kNumber, "", "Time to spend in PBKDF in milliseconds"},
    {"cluster_size", OptionType::kSize, "65536", "qcow2 cluster size"},
    {"extended_l2", OptionType::kBool, "off", "Extended L2 tables"},
    {"preallocation", OptionType::kString, "",
     "Preallocation mode (allowed values: off, metadata, falloc, full)"},
    {"compression_type", OptionType::kString, "zlib",
     "Compression method used for image cluster compression"},
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"compat", OptionType::kString, "", "Compatibility level (v2 [0.10] or v3 [1.1])"},
    {"backing_file", OptionType::kString, "", "File name of a base image"},
    {"backing_fmt", OptionType::kString, "", "Image format of the base image"},
    {"data_file", OptionType::kString, "", "File name of an external data file"},
    {"data_file_raw", OptionType::kBool, "",
     "The external data file must stay valid as a raw image"},
    {"lazy_refcounts", OptionType::kBool, "off", "Postpone refcount updates"},
    {"refcount_bits", OptionType::kNumber, "16", "Width of a reference count entry in bits"},
};

const OptionSchema kAmendOptions = {
    {"backing_file", OptionType::kString, "", "File name of a base image"},
    {"backing_fmt", OptionType::kString, "", "Image format of the base image"},
    {"compat", OptionType::kString, "", "Compatibility level (v2 [0.10] or v3 [1.1])"},
    {"data_file", OptionType::kString, "", "File name of an external data file"},
    {"data_file_raw", OptionType::kBool, "",
     "The external data file must stay valid as a raw image"},
    {"encrypt.iter-time", OptionType::kNumber, "", "Time to spend in PBKDF in milliseconds"},
    {"encrypt.keyslot", OptionType::kNumber, "", "Select a single keyslot to modify explicitly"},
    {"encrypt.new-secret", OptionType::kString, "",
     "New secret to set in the matching keyslots. Empty string to erase"},
    {"encrypt.old-secret", OptionType::kString, "", "Select all keyslots that match this password"},
    {"encrypt.state", OptionType::kString, "",
     "Select new state of affected keyslots (active/inactive)"},
    {"lazy_refcounts", OptionType::kBool, "", "Postpone refcount updates"},
    {"refcount_bits", OptionType::kNumber, "", "Width of a reference count entry in bits"},
    {"size", OptionType::kSize, "", "Virtual disk size"},
};

// What creation and measure() share: the options as a header.
struct Plan {
  Header header;
  Preallocation preallocation = Preallocation::kOff;
};

[[noreturn]] void needs_v3(const std::string& what) {
  throw Error(ErrorKind::kInvalid,
              what + " compatibility level 1.1 and above (use version=v3 or greater)");
}

Plan plan(const Options& options) {
  Plan result;
  Header& header = result.header;
  const std::string compat = options.string("compat").value_or("v3");
  if (compat == "0.10" || compat == "v2")
    header.version = 2;
  else if (compat != "1.1" && compat != "v3")
    throw Error(ErrorKind::kInvalid, "Parameter 'version' does not accept value '" + compat + "'");
  const bool v2 = header.version == 2;
  const std::string compression = options.string("compression_type").value_or("zlib");
  if (compression != "zlib" && compression != "zstd")
    throw Error(ErrorKind::kInvalid,
                "Parameter 'compression-type' does not accept value '" + compression + "'");
  try {
    result.preallocation = parse_preallocation(options.string("preallocation").value_or("off"));
  } catch (const Error&) {
    throw Error(ErrorKind::kInvalid, "Parameter 'preallocation' does not accept value '" +
                                         options.string("preallocation").value_or("") + "'");
  }
  const uint64_t cluster = options.size("cluster_size").value_or(65536);
  if (!is_power_of_two(cluster) || cluster < 512 || cluster > (2u << 20))
    throw Error(ErrorKind::kInvalid, "Cluster size must be a power of two between 512 and 2048k");
  header.cluster_bits = static_cast<uint32_t>(__builtin_ctzll(cluster));
  if (options.boolean("extended_l2").value_or(false)) {
    if (v2) needs_v3("Extended L2 entries are only supported with");
    if (cluster < 16384)
      throw Error(
          ErrorKind::kInvalid,
          "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes");
    header.incompatible |= kIncompatExtendedL2;
  }
  if (options.string("backing_file") && result.preallocation != Preallocation::kOff &&
      !header.extended_l2())
    throw Error(
        ErrorKind::kInvalid,
        "Backing file and preallocation can only be used at the same time if extended_l2 is on");
  if (options.boolean("lazy_refcounts").value_or(false)) {
    if (v2) needs_v3("Lazy refcounts only supported with");
    header.compatible |= kCompatLazyRefcounts;
  }
  const uint64_t refcount_bits = options.number("refcount_bits").value_or(16);
  if (refcount_bits > 64 || !is_power_of_two(refcount_bits))
    throw Error(ErrorKind::kInvalid,
                "Refcount width must be a power of two and may not exceed 64 bits");
  if (v2 && refcount_bits != 16)
    throw Error(
        ErrorKind::kInvalid,
        "Different refcount widths than 16 bits require compatibility level 1.1 or above (use "
        "version=v3 or greater)");
  header.refcount_order = static_cast<uint32_t>(__builtin_ctzll(refcount_bits));
  if (compression == "zstd") {
    if (v2) needs_v3("Non-zlib compression type is only supported with");
    header.compression_type = 1;
    header.incompatible |= kIncompatCompression;
  }
  header.header_length = v2 ? Header::kBytesV2 : Header::kBytesV3;
  return result;
}

// What the persistent bitmaps of SOURCE take in an image of this cluster size, if all bits were
// set.
uint64_t bitmap_bytes(const Node& source, uint64_t cluster) {
  uint64_t bytes = 0;
  uint64_t directory = 0;
  for (const DirtyBitmapPtr& bitmap : source.bitmaps().list()) {
    if (!bitmap->persistent()) continue;
    const uint64_t clusters = div_ceil(bitmap->serialized_bytes(), cluster);
    bytes += (clusters + div_ceil(clusters * 8, cluster)) * cluster;
    directory += align_up(24 + bitmap->name().size(), 8);
  }
  return bytes + align_up(directory, cluster);
}

const std::vector<Sample> kSamples = {
    {.name = "default", .crash = Sample::Crash::kClean, .exchanged = true},
    {.name = "small_clusters", .options = "cluster_size=512", .crash = Sample::Crash::kClean},
    {.name = "clusters_4k", .options = "cluster_size=4k"},
    {.name = "clusters_2M", .options = "cluster_size=2M"},
    {.name = "refcount_1",
     .options = "cluster_size=1k,refcount_bits=1",
     .crash = Sample::Crash::kClean},
    {.name = "refcount_2", .options = "cluster_size=1k,refcount_bits=2"},
    {.name = "refcount_4", .options = "cluster_size=1k,refcount_bits=4"},
    {.name = "refcount_8", .options = "cluster_size=1k,refcount_bits=8"},
    {.name = "refcount_32", .options = "cluster_size=1k,refcount_bits=32"},
    {.name = "refcount_64", .options = "cluster_size=1k,refcount_bits=64"},
    {.name = "v2", .options = "compat=0.10,cluster_size=4k", .crash = Sample::Crash::kClean},
    {.name = "extended",
     .options = "extended_l2=on,cluster_size=16k",
     .crash = Sample::Crash::kClean},
    {.name = "extended_large", .options = "extended_l2=on,cluster_size=1M"},
    {.name = "zstd", .options = "cluster_size=512,compression_type=zstd"},
    {.name = "lazy", .options = "lazy_refcounts=on"},
    {.name = "lazy_small",
     .options = "lazy_refcounts=on,cluster_size=4k",
     .crash = Sample::Crash::kClean},
    {.name = "metadata", .options = "preallocation=metadata"},
    {.name = "falloc", .options = "preallocation=falloc,cluster_size=8k"},
    {.name = "full_extended", .options = "preallocation=full,extended_l2=on"},
    {.name = "luks",
     .options = "cluster_size=4k,encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=0,"
                "encrypt.cipher-alg=aes-128",
     .open_options = "encrypt.key-secret=s0",
     .crash = Sample::Crash::kClean},
    {.name = "luks_default",
     .options = "cluster_size=4k,encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=0",
     .open_options = "encrypt.key-secret=s0"},
    {.name = "aes",
     .options = "cluster_size=4k,encrypt.format=aes,encrypt.key-secret=s0",
     .open_options = "encrypt.key-secret=s0",
     .crash = Sample::Crash::kClean},
    {.name = "data_file", .options = "data_file=@"},
    {.name = "data_file_small",
     .options = "data_file=@,cluster_size=4k",
     .crash = Sample::Crash::kClean},
    {.name = "data_file_raw",
     .options = "data_file=@,data_file_raw=on,cluster_size=4k",
     .crash = Sample::Crash::kClean},
};

class Qcow2Driver : public FormatDriver<Qcow2Node> {
 public:
  Qcow2Driver()
      : FormatDriver({.name = "qcow2",
                      .title = "QEMU copy-on-write, versions 2 and 3",
                      .endings = {"qcow2"},
                      .page = "formats/qcow2.md",
                      .abilities = {.create = true, .resize = true, .repair = true},
                      .open_options = kOpenOptions,
                      .create_options = kCreateOptions,
                      .amend_options = kAmendOptions,
                      .samples = kSamples}) {}
  bool shapes_disk(std::string_view option) const override {
    return option.starts_with("encrypt.");
  }
  ProbeResult probe(const ProbeInput& input) const override {
    if (input.head.size() < 8 || load_be<uint32_t>(input.head, 0) != kMagic) return {.score = 0};
    return {.score = load_be<uint32_t>(input.head, 4) >= 2 ? 100 : 0};
  }

  void check_creation(Context& context, const std::string& filename, uint64_t,
                      const Options& options) const override {
    plan(options);
    if (EncryptionPlan::parse(options).method != 0)
      encryption_secret(context, options, filename, true);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    Plan what = plan(request.options);
    const EncryptionPlan encryption = EncryptionPlan::parse(request.options);
    const Secret* passphrase = nullptr;
    if (encryption.method != 0)
      passphrase = &encryption_secret(context, request.options, request.filename, true);
    if (request.parts) {
      const auto part = request.parts->find("data-file");
      const NodePtr data = part == request.parts->end() ? nullptr : part->second;
      if (data) request.options.set("data_file", data->filename());
      co_await create_on(context, request, data, std::move(what), encryption, passphrase);
      co_return;
    }
    const auto data_file = request.options.string("data_file");
    NewFile data;
    if (data_file) co_await data.make(context, *data_file, request.overwrite);
    std::exception_ptr error;
    try {
      co_await create_on(context, request, data.node(), std::move(what), encryption, passphrase);
    } catch (...) {
      error = std::current_exception();
    }
    co_await data.finish(error);
  }

  Task<void> create_on(Context& context, const CreateRequest& request, NodePtr data, Plan what,
                       const EncryptionPlan& encryption, const Secret* passphrase) const {
    Extensions extensions;
    extensions.data_file = request.options.string("data_file").value_or("");
    extensions.backing_name = request.options.string("backing_file").value_or("");
    extensions.backing_format = request.options.string("backing_fmt").value_or("");
    if (extensions.backing_name.empty() && !extensions.backing_format.empty())
      throw Error(ErrorKind::kInvalid, "Backing format cannot be used without backing file");
    Header& header = what.header;
    const bool raw = request.options.boolean("data_file_raw").value_or(false);
    if (data && header.version == 2) needs_v3("External data files are only supported with");
    if (raw && !data) throw Error(ErrorKind::kInvalid, "data-file-raw requires data-file");
    if (raw && !extensions.backing_name.empty())
      throw Error(ErrorKind::kInvalid,
                  "Backing file and data-file-raw cannot be used at the same time");
    if (data) header.incompatible |= kIncompatDataFile;
    if (raw) header.autoclear |= kAutoclearRawData;
    if (request.size > header.max_size())
      throw Error(ErrorKind::kTooLarge,
                  "The image size is too large for file format 'qcow2' (try using a "
                  "larger cluster size)");
    const uint64_t cluster = header.cluster_bytes();
    header.refcount_table_offset = cluster;
    header.refcount_table_clusters = 1;
    // Header, refcount table and the first refcount block; the node itself does the rest.
    std::vector<std::byte> bytes = encode_first_cluster(header, extensions);
    bytes.resize(3 * cluster);
    store_be<uint64_t>(bytes, cluster, 2 * cluster);
    for (uint64_t i = 0; i < 3; ++i)
      set_refcount(MutableByteSpan(bytes).subspan(2 * cluster), i, header.refcount_order, 1);
    co_await request.file->write(0, bytes);
    auto node = std::make_shared<Qcow2Node>(context, *this, request.file);
    co_await node->load_fresh(data);
    co_await node->resize({.length = request.size, .preallocation = what.preallocation});
    if (passphrase != nullptr) co_await node->make_encryption(encryption, *passphrase);
    co_await node->close();
  }

  Task<MeasureResult> measure(Context& context, Options options, uint64_t size,
                              NodePtr source) const override {
    // Postponing updates of refcounts takes no space, whatever the version allows.
    options.erase("lazy_refcounts");
    const std::string compat = options.string("compat").value_or("1.1");
    if (!context.profile.extensions && compat != "0.10" && compat != "1.1")
      throw Error(ErrorKind::kInvalid, "Invalid compatibility level: '" + compat + "'");
    const Plan what = plan(options);
    const Header& header = what.header;
    if (size > header.max_size())
      throw Error(ErrorKind::kTooLarge,
                  "The image size is too large (try using a larger cluster size)");
    const uint64_t cluster = header.cluster_bytes();
    const uint64_t aligned = align_up(size, cluster);
    uint64_t needed = 0;
    if (what.preallocation == Preallocation::kFalloc ||
        what.preallocation == Preallocation::kFull) {
      needed = aligned;
    } else if (source && options.string("backing_file")) {
      needed = aligned;
    } else if (source) {
      uint64_t counted = 0;  // guest bytes below this are dealt with
      for (uint64_t at = 0; at < source->length();) {
        const Extent extent = co_await source->extent_at(at, source->length() - at);
        if (extent.data && !extent.zero) {
          const uint64_t begin = std::max(counted, align_down(at, cluster));
          const uint64_t end = align_up(at + extent.length, cluster);
          if (end > begin) needed += end - begin;
          counted = std::max(counted, end);
        }
        at += extent.length;
        report_work(context, "measure", at, source->length());
      }
    }
    const uint64_t entry = header.l2_entry_bytes();
    uint64_t metadata = cluster;
    const uint64_t l2_entries = align_up(aligned / cluster, cluster / entry);
    metadata += l2_entries * entry;
    metadata += align_up(l2_entries * entry / cluster, cluster / 8) * 8;
    const uint64_t clusters = (metadata + aligned) / cluster;
    uint64_t blocks = 0;
    uint64_t table = 0;
    while (true) {
      const uint64_t new_blocks = div_ceil(clusters + table + blocks, header.refcounts_per_block());
      const uint64_t new_table = div_ceil(new_blocks, cluster / 8);
      if (new_blocks == blocks && new_table == table) break;
      blocks = new_blocks;
      table = new_table;
    }
    metadata += (blocks + table) * cluster;
    const EncryptionPlan encryption = EncryptionPlan::parse(options);
    if (encryption.method == 2) encryption_secret(context, options, "the image to be", true);
    metadata += align_up(encryption.header_bytes(), cluster);
    MeasureResult result{
        .required = metadata + needed, .fully_allocated = metadata + aligned, .bitmaps = {}};
    if (source && supports_bitmaps(*source) && header.version >= 3)
      result.bitmaps = bitmap_bytes(*source, cluster);
    co_return result;
  }
};

}  // namespace

std::unique_ptr<Driver> make_qcow2_driver() { return std::make_unique<Qcow2Driver>(); }

}  // namespace cairn
