#include "block/driver.h"

#include <fmt/core.h>

#include "base/arith.h"
#include "block/open_format.h"
#include "format/qed/node.h"

namespace cairn {

using namespace qed;

namespace {

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"backing_file", OptionType::kString, "", "File name of a base image"},
    {"backing_fmt", OptionType::kString, "", "Image format of the base image"},
    {"cluster_size", OptionType::kSize, "65536", "Cluster size (in bytes)"},
    {"table_size", OptionType::kSize, "", "L1/L2 table size (in clusters)"},
};

// The header that OPTIONS ask for. Throws kInvalid and kNoSpace for what QEMU could not open.
Header plan(uint64_t size, const Options& options) {
  const uint64_t cluster = options.size("cluster_size").value_or(65536);
  const uint64_t table = options.size("table_size").value_or(4);
  check_cluster_size(cluster);
  check_table_size(table);
  Header header;
  header.cluster_size = static_cast<uint32_t>(cluster);
  header.table_size = static_cast<uint32_t>(table);
  header.l1_offset = cluster;
  header.size = size;
  const std::string name = options.string("backing_file").value_or("");
  if (!name.empty()) {
    if (name.size() > std::min<uint64_t>(cluster - kHeaderBytes, kMaxBackingName))
      throw Error(ErrorKind::kNoSpace, "The name of the backing file is too long for QED");
    header.features |= kBackingFile;
    if (options.string("backing_fmt") == "raw") header.features |= kBackingRaw;
    header.backing_offset = kHeaderBytes;
    header.backing_bytes = static_cast<uint32_t>(name.size());
  }
  // What QEMU's 64 bits make of entries² × cluster.
  const uint64_t most = header.entries() * header.entries() * cluster;
  if (size > most || size > header.max_size())
    throw Error(
        ErrorKind::kInvalid,
        fmt::format(
            "QED image size must be a non-zero multiple of cluster size and less than {} bytes",
            most));
  if (table == 1)
    throw Error(ErrorKind::kInvalid, "QED tables of one cluster cannot be opened by QEMU")
        .hint("Take table_size=2 or more.");
  return header;
}

const std::vector<Sample> kSamples = {
    {.name = "default", .shrinks = false, .exchanged = true},
    {.name = "small",
     .options = "cluster_size=4k,table_size=2",
     .shrinks = false,
     .crash = Sample::Crash::kClean},
};

class QedDriver : public FormatDriver<QedNode> {
 public:
  QedDriver()
      : FormatDriver({.name = "qed",
                      .title = "QEMU Enhanced Disk",
                      .endings = {"qed"},
                      .page = "formats/qed.md",
                      .abilities = {.create = true, .resize = true, .repair = true},
                      .create_options = kCreateOptions,
                      .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score = input.head.size() >= kHeaderBytes && load_le<uint32_t>(input.head, 0) == kMagic
                         ? 100
                         : 0};
  }

  Task<void> create(Context&, CreateRequest request) const override {
    const Header header = plan(request.size, request.options);
    const std::string name = request.options.string("backing_file").value_or("");
    std::vector<std::byte> head(kHeaderBytes + name.size());
    header.encode(head);
    store_text(head, kHeaderBytes, name);
    co_await request.file->write(0, head);
    if (request.file->reads_zero_when_created())
      co_await request.file->resize(
          {.length = header.l1_offset + header.table_bytes(), .exact = false});
    else
      co_await request.file->write_zeroes(header.l1_offset, header.table_bytes());
  }
};

}  // namespace

std::unique_ptr<Driver> make_qed_driver() { return std::make_unique<QedDriver>(); }

}  // namespace cairn
