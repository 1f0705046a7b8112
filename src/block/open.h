#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "async/task.h"
#include "base/options.h"
#include "block/node.h"
#include "block/permissions.h"

namespace cairn {

class ServerWatch;

// Which references found inside images (backing files, data files, extents, json: names) may be
// opened.
struct ReferencePolicy {
  enum class Mode { kAllow, kConfine, kDeny };
  Mode mode = Mode::kAllow;
  std::string directory;  // for kConfine: only regular files below it
  // Throws kDenied that names the reference when it may not be opened.
  void check(std::string_view reference) const;
};

// The nodes of a running block layer: those that are opened find others there, and become known.
class OpenedNodes {
 public:
  // The node of that name; null where there is none.
  virtual NodePtr find_opened(std::string_view name) = 0;
  // Throws where no new node can be called NAME.
  virtual void check_new_name(const std::string& name) = 0;
  // NODE was opened with OPTIONS, those of its children not among them, and what they do not say as
  // in FLAGS. From now on it is closed by who has these nodes, and by nobody else.
  virtual void opened(NodePtr node, Options options, const struct OpenFlags& flags) = 0;

 protected:
  ~OpenedNodes() = default;
};

struct CacheMode {
  bool direct = false;         // O_DIRECT
  bool no_flush = false;       // flushes are ignored
  bool write_through = false;  // flush after every write
  // "none", "off", "writeback", "writethrough", "directsync", "unsafe"; nothing when unknown.
  static std::optional<CacheMode> parse(std::string_view name);
};

struct OpenFlags {
  bool writable = false;
  bool metadata_only = false;  // `info`: no data I/O will follow; no secrets needed
  bool find_parent = false;    // … but a parent known by an identifier alone is looked for
  bool no_backing = false;     // do not open the backing file
  bool force_share = false;    // -U
  bool unshare_write = false;  // refuse other writers even where the format would share (convert)
  bool unshare_resize = false;
  bool resize = false;         // the size will be changed (raw: also needs the resize permission)
  bool discard_unmap = false;  // default of the discard option
  bool quiet_probe = false;    // no warning that writes are limited where raw was only detected
  bool for_check = false;      // `check`: open what other openings refuse
  bool cached = false;         // a cache is above: remote nodes need none of their own
  bool salvage = false;        // read what is left: a file that was cut off is opened
  CacheMode cache;
  ReferencePolicy references;
  OpenedNodes* nodes = nullptr;  // of a running block layer; options may name its nodes
};

// What to open: exactly one of the spellings.
struct OpenRequest {
  std::string filename;      // plain name, prefix:…, URI or json:{…}; empty with --image-opts
  std::string format;        // empty: probe
  Options options;           // dotted options (--image-opts, -o of openers), may hold driver
  bool image_opts = false;   // filename is empty and options describe the tree
  std::string display;       // how errors name the image when there is no filename
  bool bare_errors = false;  // errors do not say which image it was: the caller does
  // An open node as backing, instead of what the image or the options name; belongs to the new
  // node, which closes it. When opening fails it is still the caller's.
  NodePtr backing;
  // The same for the child "file": how a filter is put over what is open already.
  NodePtr file;
  OpenFlags flags;
};

// Passed to Driver::open(): the options of this node and ways to open its children.
struct OpenContext {
  Context& context;
  const Driver& driver;
  Options options;  // this node's, generic ones (read-only, cache.*, …) already taken
  OpenFlags flags;
  std::string filename;  // as the user wrote it; for protocol drivers "filename" is in options
  unsigned depth = 0;    // nesting, bounded
  // For protocols: the locks to take before anything is read.
  Permissions permissions;
  // The images above in the backing chain, to refuse cycles.
  const struct OpenAncestors* ancestors = nullptr;
  // The file that probing opened already; open_file() hands it out.
  NodePtr probed_file;
  // OpenRequest::backing; open_backing() hands it out.
  NodePtr given_backing;
  // The server of a remote protocol; drivers that connect again say so there. Null for others.
  std::shared_ptr<ServerWatch> server;

  // What this node, used as the flags say, needs of its file.
  Permissions file_permissions() const;

  // Opens the child called NAME ("file", "data-file") from the options NAME and NAME.*, or from the
  // node's own filename for "file". The permissions that a format needs on its file follow from
  // flags; raw passes its user's on.
  Task<NodePtr> open_file(std::string_view name = "file");
  // The same for a child that is an image rather than bytes: its format is looked for.
  Task<NodePtr> open_image(std::string_view name);
  // Opens the image whose file is BYTES, which then belongs to it; its format is looked for when
  // FORMAT is empty. It may refer to nothing, but have BACKING below it. On failure both are still
  // the caller's.
  Task<NodePtr> open_over(NodePtr bytes, std::string_view format, NodePtr backing = nullptr);
  // Opens the backing file: options backing.* win over the name stored in the image. Null when
  // there is none, it is overridden by null or flags say not to. Relative names are resolved
  // against the directory of the image. Applies the ReferencePolicy and refuses cycles.
  Task<NodePtr> open_backing(std::string_view stored_name, std::string_view stored_format);
  // Opens the child "data-file": from its options, else the file STORED_NAME as a plain name that
  // is relative to the working directory (as QEMU does), when the ReferencePolicy allows it.
  Task<NodePtr> open_data_file(std::string_view stored_name);
  // Opens a file that the image names (an extent), whose path the format has made one from here.
  // Applies the ReferencePolicy.
  Task<NodePtr> open_reference(std::string_view child_name, std::string_view plain_path);

 private:
  NodePtr find_opened(const std::string& name) const;
  Task<NodePtr> open_child(std::string_view name, bool bytes, Permissions permissions);
};

// Opens an image: parses the name, probes, builds the tree. Throws Error with QEMU's wording; the
// prefix "Could not open 'NAME'" is included.
Task<NodePtr> open_node(Context& context, OpenRequest request);

// The name of the backing file REFERENCE stored in the image IMAGE_NAME, resolved as QEMU does:
// absolute, protocol and json: names as they are, others relative to the image's directory. Throws
// kInvalid when the image has no plain name.
std::string resolve_backing_name(std::string_view image_name, std::string_view reference);
// The same for an open image: relative to the directory of the file below it, whatever filters are
// between them.
std::string resolve_backing_name(const Node& image, std::string_view reference);
// The name of that file, by which a relative name is resolved; json:… when there is no such file.
std::string file_name_below(const Node& node);

// The name of what is opened when FILENAME is a directory that a format knows as one disk, else
// FILENAME.
std::string image_in_folder(const Context& context, const std::string& filename);

// True when both names reach one existing file.
bool same_file(const std::string& a, const std::string& b);

// The protocol that FILENAME leads to: of a device, of its prefix, or `file`. Throws kInvalid for
// an unknown prefix, kNotFound for what other systems call a drive.
const Driver& protocol_of(const Context& context, const std::string& filename);

// Throws kDenied when PROTOCOL reaches servers, and this process must not (Context::local_only).
void check_reach(const Context& context, const Driver& protocol);

// True for "proto:…" (a colon before the first slash).
bool has_protocol_prefix(std::string_view filename);

struct CreateOptions {
  std::string filename;
  std::string format;  // "raw" when empty
  Options options;     // of -o, with backing_file/backing_fmt merged in
  std::optional<uint64_t> size;
  bool backing_unchecked = false;  // -u
  // Called with QEMU's "Formatting '…', …" line (no newline) before the driver starts.
  std::function<void(std::string_view)> announce;
  // The caller opens the image right away: a backing file that is missing is reported as then.
  bool opened_next = false;
  // Files with content may be emptied; under QEMU's names they always may.
  bool overwrite = false;
  // The same for files that the format makes besides.
  bool overwrite_parts = false;
  // The file that receives the bytes, when the image gets FILENAME as its name later on.
  std::string written_to = {};
};
// Throws kExists when PATH is a regular file with content.
void refuse_existing(const std::string& path);
// As refuse_existing() of a file with content.
[[noreturn]] void refuse_to_replace(const std::string& name);

// Creates an image: the checks of `create` in QEMU's order, then the protocol's and the format's
// create. Takes the locks before anything is truncated; a file that was there and is in use is
// neither truncated nor removed; a file that this call created is removed when it fails.
Task<void> create_image(Context& context, CreateOptions request);

}  // namespace cairn
