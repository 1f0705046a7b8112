#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "base/options.h"
#include "block/byte_sink.h"
#include "block/node.h"
#include "block/open.h"

namespace cairn {

struct ProbeInput {
  ByteSpan head;  // at least the first 2048 bytes, zero-padded past the end
  ByteSpan tail;  // the last 512 bytes of a file with as many, else empty; only for extensions
  uint64_t length = 0;
  std::string_view filename;
};

struct ProbeResult {
  int score = 0;           // 0: not mine … 100: certain
  bool extension = false;  // counts only where the Profile offers extensions
};

struct MeasureResult {
  uint64_t required = 0;
  uint64_t fully_allocated = 0;
  std::optional<uint64_t> bitmaps;
};

struct CreateRequest {
  std::string filename;  // of the file that receives the image
  uint64_t size = 0;     // virtual size, bytes, a multiple of 512
  Options options;       // checked against the create schema of format and protocol; without size
  // For protocols: where it is, as the options say that open it. Empty: FILENAME says so.
  Options location = {};
  // For formats: the opened, empty, writable protocol node. Null for protocols.
  NodePtr file;
  // Files that the image has besides FILE, opened and writable, by the names of its children:
  // "data-file", "header", "extents.0". Nothing: the format makes what it needs.
  std::optional<std::map<std::string, NodePtr>> parts = {};
  // The resolved backing file's virtual size when it was opened; formats seldom need it.
  std::optional<uint64_t> backing_size;
  // What the protocol's option of that name asks for: the format sizes the file.
  Preallocation preallocation = Preallocation::kOff;
  // Other files that the format makes may be there already, with content: they are emptied.
  bool overwrite = false;
};

// What no capability of a driver's nodes says.
struct Abilities {
  bool create = false;
  bool resize = false;
  bool repair = false;     // a check may repair what it finds
  bool read_only = false;  // images cannot be written
};

// Which of a driver's abilities, and of what all nodes have, are extensions: the Profile says
// whether they are offered.
struct DriverExtensions {
  bool check = false;
  bool repair = false;
  bool resize = false;
  bool measure = false;
  bool facts = false;  // specific_info()
};

enum class DriverKind : uint8_t {
  kProtocol,  // reaches bytes: files, devices, servers
  kFormat,    // gives bytes a structure
  kFilter,    // passes another node through
};

// One layout of new images of a format, for the tests, fuzzers and benchmarks that go through all
// formats.
struct Sample {
  enum class Crash : uint8_t {
    kUntested,
    kClean,     // what a crash leaves needs no repair
    kRepaired,  // counters next to the tables, which no order of writes keeps true, may need one
  };
  std::string_view name;               // letters, digits and _; no other of the format has it
  std::string_view options = {};       // of creation; data_file=@ is a file next to the image
  std::string_view open_options = {};  // a key is that of the secret "s0"
  bool zeroed = true;                  // what was never written reads as zeroes
  bool shrinks = true;                 // where the format can be resized
  bool rewrites = true;                // false: the tests that write at random leave it out
  Crash crash = Crash::kUntested;
  bool exchanged = false;  // goes through the conversions to and from all others, with QEMU's tools
};

// What is known of a driver without asking it: the same for all of its nodes.
struct DriverTraits {
  std::string_view name = {};
  // One line for people.
  std::string_view title = {};
  DriverKind kind = DriverKind::kFormat;
  // Endings of file names, in lower case without the dot; the usual one first.
  std::vector<std::string_view> endings = {};
  // The page on the driver, below docs/; empty: the README says all.
  std::string_view page = {};
  // Protocol prefixes of file names, without the colon: {"nbd", "nbd+unix"}.
  std::vector<std::string_view> prefixes = {};
  // The file that is opened when a directory is named that has it; empty: there is none.
  std::string_view folder_member = {};
  Abilities abilities = {};
  // Of the class of its nodes, CapabilityList::ids(): what an image of the driver may have.
  CapabilityIds capabilities = {};
  DriverExtensions extensions = {};
  // The driver generates the content of the disk: then what a guest writes there cannot turn it
  // into an image of some format, and nobody need be warned.
  bool makes_its_disks = false;
  // Bytes go to the same place below as they are, without a structure of the driver's own: several
  // programs may write at once. Raw, most filters, and protocols that store bytes.
  bool verbatim = false;
  // A protocol whose storage has a size of its own, which creation finds and cannot choose: devices
  // and servers.
  bool fixed_size = false;
  // A protocol that reaches other machines, or servers on this one.
  bool remote = false;
  // A protocol whose files are written once, by upload(), and never changed.
  bool written_once = false;
  // Options of opening besides the generic ones, of creation (with "size"), and of amend. Those of
  // creation are in the order in which `create` announces them.
  OptionSchema open_options = {};
  OptionSchema create_options = {};
  OptionSchema amend_options = {};
  // Layouts that new images may have. Without any, the format is tested by its own tests alone.
  std::vector<Sample> samples = {};
};

// One format, protocol or filter, registered as data from its own directory.
class Driver {
 public:
  explicit Driver(DriverTraits traits) : traits_(std::move(traits)) {}
  virtual ~Driver() = default;
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  const DriverTraits& traits() const { return traits_; }
  std::string_view name() const { return traits_.name; }
  std::string_view title() const { return traits_.title; }
  DriverKind kind() const { return traits_.kind; }
  const std::vector<std::string_view>& prefixes() const { return traits_.prefixes; }
  const Abilities& abilities() const { return traits_.abilities; }
  // Whether nodes of the driver may have the capability T.
  template <class T>
  bool offers() const {
    const CapabilityIds& all = traits_.capabilities;
    return std::find(all.begin(), all.end(), &T::kCapability) != all.end();
  }
  const OptionSchema& open_options() const { return traits_.open_options; }
  const OptionSchema& create_options() const { return traits_.create_options; }
  const OptionSchema& amend_options() const { return traits_.amend_options; }

  // How surely PATH is a device of the host that this protocol reaches: 0 … 100. Blocks.
  virtual int probe_device(const std::string&) const { return 0; }
  // How surely a file is of this format. Raw answers 1.
  virtual ProbeResult probe(const ProbeInput&) const { return {}; }
  // Whether an open option decides what disk is seen, rather than how it is worked with. A node
  // that was opened with one such has no plain name.
  virtual bool shapes_disk(std::string_view option) const;
  // Splits what follows "prefix:" (or a whole URI) into options: "filename" by default.
  virtual void parse_filename(std::string_view filename, Options& options) const;

  // Opens a node. Format drivers open their children through the request. Throws.
  virtual Task<NodePtr> open(OpenContext& request) const = 0;
  // Creates an image in request.file, or (protocols) the file itself. Options are already known to
  // be in the schema. On failure, what was written does not matter: the caller removes it.
  virtual Task<void> create(Context& context, CreateRequest request) const;
  // For protocols whose files are written once: begins one. Throws kExists where it is there and
  // not to be replaced.
  virtual Task<std::shared_ptr<ByteSink>> upload(Context& context, UploadRequest request) const;
  // The options' values that `create` announces, in the order of the schema: "size", what was
  // given, and the defaults that the schema has.
  std::vector<std::pair<std::string, std::string>> announce(const Options& options,
                                                            uint64_t size) const;
  // Throws what create() would throw because of the OPTIONS, before the file FILENAME is touched.
  virtual void check_creation(Context&, const std::string&, uint64_t, const Options&) const {}
  // False when images with these OPTIONS hold no disk and so need no size.
  virtual bool needs_size(const Options&) const { return true; }
  // How large a file of this format must be. SOURCE may be null (only SIZE counts).
  virtual Task<MeasureResult> measure(Context& context, Options options, uint64_t size,
                                      NodePtr source) const;

 private:
  const DriverTraits traits_;
};

// The drivers of this program; filled once at start by src/cli (or the library's user) from the
// table in src/drivers.inc. Not changed afterwards.
class Registry {
 public:
  void add(std::unique_ptr<Driver> driver);
  const Driver* find(std::string_view name) const;
  const Driver* find_protocol(std::string_view prefix) const;
  // The protocol that reaches the device PATH; null when PATH is no device.
  const Driver* find_device_protocol(const std::string& path) const;
  // All drivers, by name.
  std::vector<const Driver*> all() const;
  // The format whose probe scores highest, counting those that are EXTENSIONS or not. Two formats
  // that are both certain: throws kInvalid that names both and asks for the format.
  const Driver* probe(const ProbeInput& input, bool extensions) const;

 private:
  std::vector<std::unique_ptr<Driver>> drivers_;
};

}  // namespace cairn
