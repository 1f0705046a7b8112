#include "format/ova/node.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "async/finally.h"
#include "base/size.h"
#include "block/capabilities/checkable.h"
#include "block/context.h"
#include "block/driver.h"
#include "crypto/digest.h"
#include "format/ova/packer.h"
#include "format/ova/slice.h"
#include "platform/directory.h"

namespace cairn {

using namespace ova;

namespace {

constexpr uint64_t kMaxDescriptorBytes = 8 << 20;
constexpr uint64_t kMaxManifestBytes = 1 << 20;
constexpr size_t kPieceBytes = 1 << 20;

bool ends_with(const std::string& name, std::string_view ending) {
  return name.size() > ending.size() &&
         std::equal(ending.rbegin(), ending.rend(), name.rbegin(),
                    [](char a, char b) { return a == (b >= 'A' && b <= 'Z' ? b + 32 : b); });
}

std::string stem_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

}  // namespace

OvaNode::OvaNode(Context& context, const Driver& driver, NodePtr file)
    : Node(context, driver), file_(file.get()) {
  add_child("file", std::move(file), ChildRole::kFile);
}

Task<void> OvaNode::load(OpenContext& request) {
  set_read_only(!request.flags.writable);
  // The choice of a disk is no part of the name.
  set_filename(file_->filename());
  std::vector<std::byte> head(kTarBlock);
  co_await file_->read(
      0, MutableByteSpan(head).first(std::min<uint64_t>(head.size(), file_->length())));
  const std::string start = load_text(head, 0, head.size());
  const size_t first = start.find_first_not_of("\xef\xbb\xbf \t\r\n");
  packed_ = first == std::string::npos || start[first] != '<';
  if (!packed_) co_return co_await load_directory(request);
  members_ = co_await read_tar(*file_);
  if (members_.empty() || !ends_with(members_.front().name, ".ovf"))
    invalid("the archive is not an appliance: it does not begin with an OVF descriptor");
  base_ = members_.front().name.substr(0, members_.front().name.rfind('/') + 1);
  descriptor_ = co_await text_of(members_.front(), kMaxDescriptorBytes);
  envelope_ = Envelope::parse(descriptor_);
  if (envelope_.disks.empty()) invalid("the appliance has no disks");
  choose(request.options.string("disk"), !request.flags.metadata_only);
  if (!read_only())
    co_await begin_disk(request);
  else
    co_await open_disk(request);
}

Task<std::string> OvaNode::text_of(Member member, uint64_t most) {
  if (member.bytes > most)
    invalid(fmt::format("'{}' in the archive has {} bytes; {} are read at most", member.name,
                        member.bytes, most));
  std::string text(member.bytes, '\0');
  co_await file_->read(member.offset, std::as_writable_bytes(std::span(text.data(), text.size())));
  co_return text;
}

std::string OvaNode::member_name(const std::string& name) const { return base_ + name; }

const Member* OvaNode::member(std::string_view name) const {
  const auto found = std::find_if(members_.begin(), members_.end(),
                                  [&](const Member& one) { return one.name == name; });
  return found == members_.end() ? nullptr : &*found;
}

// A line for every disk, by what it can be chosen.
std::string OvaNode::list() const {
  std::string text;
  for (size_t i = 0; i < envelope_.disks.size() && i < 20; ++i) {
    const Disk& disk = envelope_.disks[i];
    text += fmt::format("{}{}: {}", text.empty() ? "" : "\n", i + 1, disk.id);
    if (!disk.file.empty()) text += ", " + disk.file;
    if (disk.capacity) text += ", " + human_size(*disk.capacity);
  }
  return text;
}

// By number, from 1 on, by identifier or by the name of the file.
void OvaNode::choose(const std::optional<std::string>& wanted, bool must) {
  const std::vector<Disk>& disks = envelope_.disks;
  if (!wanted) {
    if (disks.size() > 1 && must)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("the appliance has {} disks: one must be chosen by the option 'disk'",
                              disks.size()))
          .hint(list());
    // To be looked at: one that can be.
    while (chosen_ + 1 < disks.size() && !disks[chosen_].unusable.empty()) ++chosen_;
    return;
  }
  for (chosen_ = 0; chosen_ < disks.size(); ++chosen_)
    if (disks[chosen_].id == *wanted || disks[chosen_].file == *wanted ||
        std::to_string(chosen_ + 1) == *wanted)
      return;
  chosen_ = 0;
  throw Error(ErrorKind::kInvalid, "the appliance has no disk '" + *wanted + "'").hint(list());
}

// --- reading ---

Task<NodePtr> OvaNode::open_member(OpenContext& request, const Disk& disk) {
  const Member* place = member(member_name(disk.file));
  if (place == nullptr)
    invalid("the disk '" + disk.id + "' is in the file '" + disk.file +
            "', which the archive does not have");
  NodePtr bytes = std::make_shared<SliceNode>(*file_, place->offset, place->bytes,
                                              file_->filename() + ": " + place->name);
  std::exception_ptr failure;
  try {
    if (disk.gzip) bytes = co_await unpack(bytes, disk);
    NodePtr node = co_await request.open_over(bytes, "");
    co_return node;
  } catch (Error& error) {
    failure = std::make_exception_ptr(error.context("'" + place->name + "' in the archive"));
  }
  co_await bytes->close();
  std::rethrow_exception(failure);
}

Task<void> OvaNode::open_disk(OpenContext& request) {
  const Disk& disk = envelope_.disks[chosen_];
  if (!disk.unusable.empty())
    throw Error(ErrorKind::kUnsupported,
                "the disk '" + disk.id + "' of the appliance cannot be read: " + disk.unusable);
  // To look at it, a packed disk need not be unpacked.
  if (disk.file.empty() || (disk.gzip && request.flags.metadata_only && disk.capacity)) {
    if (!disk.capacity || *disk.capacity > static_cast<uint64_t>(INT64_MAX) - 511)
      invalid("the disk '" + disk.id + "' of the appliance has neither content nor a size");
    set_length((*disk.capacity + 511) / 512 * 512);
    co_return;
  }
  NodePtr node;
  if (packed_)
    node = co_await open_member(request, disk);
  else
    node = co_await open_beside(request, disk);
  disk_ = node.get();
  add_child("disk", std::move(node), ChildRole::kExtent);
  const bool told_vmdk = disk.format.find("vmdk") != std::string::npos;
  if (told_vmdk && disk_->driver().name() != "vmdk")
    invalid("'" + disk.file + "' is not a VMDK image, as the descriptor says");
  Limits& limits = mutable_limits();
  limits.cluster_bytes = disk_->limits().cluster_bytes;
  limits.remote = disk_->limits().remote;
  set_length(disk_->length());
}

Task<void> OvaNode::do_read(uint64_t offset, MutableByteSpan out) {
  if (disk_ != nullptr) co_return co_await disk_->read(offset, out);
  std::memset(out.data(), 0, out.size());
}

Task<Extent> OvaNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent;
  extent.length = max;
  extent.zero = true;
  extent.allocated = true;
  if (disk_ == nullptr) co_return extent;
  extent = co_await disk_->layer_extent_at(offset, max);
  // Nothing is below an appliance.
  if (!extent.allocated) extent.zero = true;
  extent.allocated = true;
  co_return extent;
}

Value OvaNode::specific_info() const {
  Value disks = Value::array();
  for (size_t i = 0; i < envelope_.disks.size(); ++i) {
    const Disk& disk = envelope_.disks[i];
    Value one = Value::object();
    one.set("id", disk.id);
    if (!disk.file.empty()) one.set("file", disk.file);
    if (disk.capacity) one.set("capacity", *disk.capacity);
    if (disk_ != nullptr && i == chosen_) one.set("format", disk_->driver().name());
    if (!disk.unusable.empty()) one.set("unusable", disk.unusable);
    one.set("shown", i == chosen_);
    disks.push_back(std::move(one));
  }
  Value result = Value::object();
  result.set("name", envelope_.name);
  result.set("manifest", packed_ && member(stem_of(members_.front().name) + ".mf") != nullptr);
  result.set("disks", std::move(disks));
  return result;
}

// --- checking ---

// The digests of the manifest, and the disk by its own format's rules.
Task<CheckResult> OvaNode::check(CheckRequest request) {
  CheckResult result;
  if (disk_ != nullptr && disk_->as<Checkable>() != nullptr)
    result = co_await check_image(*disk_, request);
  if (!packed_) co_return result;
  const Member* manifest = member(stem_of(members_.front().name) + ".mf");
  if (manifest == nullptr) co_return result;
  const std::string text = co_await text_of(*manifest, kMaxManifestBytes);
  for (const Digested& line : parse_manifest(text)) co_await check_digest(line, result, request);
  co_return result;
}

Task<void> OvaNode::check_digest(const Digested& line, CheckResult& result,
                                 const CheckRequest& request) {
  const auto finding = [&](const std::string& what) {
    ++result.corruptions;
    if (request.report) request.report("ERROR: '" + line.file + "' of the manifest: " + what);
  };
  const Member* found = member(member_name(line.file));
  if (found == nullptr) co_return finding("the archive does not have it");
  std::optional<Digest> digest;
  try {
    digest.emplace(line.algorithm);
  } catch (const Error&) {
  }
  if (!digest) co_return finding("'" + line.algorithm + "' is not a known digest");
  std::vector<std::byte> piece(kPieceBytes);
  for (uint64_t done = 0; done < found->bytes;) {
    const uint64_t part = std::min<uint64_t>(piece.size(), found->bytes - done);
    co_await file_->read(found->offset + done, MutableByteSpan(piece).first(part));
    digest->add(ByteSpan(piece).first(part));
    done += part;
  }
  if (digest->finish() != line.digest) finding("its content has another digest");
}

// --- writing ---

Task<void> OvaNode::begin_disk(OpenContext& request) {
  const bool fresh = packed_ && envelope_.disks.size() == 1 && envelope_.disks[0].file.empty() &&
                     envelope_.disks[0].capacity && members_.size() <= 2;
  if (!fresh)
    throw Error(ErrorKind::kDenied, "an appliance is written once, as a whole")
        .hint("Convert to a new one instead.");
  const Driver* vmdk = context().registry().find("vmdk");
  if (vmdk == nullptr) throw Error(ErrorKind::kUnsupported, "this program has no vmdk driver");
  disk_file_ = stem_of(members_.front().name) + "-disk1.vmdk";
  const std::string& path = file_->filename();
  const bool plain = file_->driver().name() == "file" && !path.starts_with("json:");
  const size_t slash = platform::last_separator(path);
  std::string folder = plain ? "." : "/var/tmp";
  if (plain && slash != std::string::npos) folder = path.substr(0, slash + 1);
  spool_ = std::make_unique<UnnamedFile>(folder, "Could not make a temporary file");
  NodePtr bytes = co_await open_spool(*spool_, true);
  NodePtr node;
  co_await on_failure(
      [&]() -> Task<void> {
        CreateRequest image;
        image.filename = disk_file_;
        image.size = (*envelope_.disks[0].capacity + 511) / 512 * 512;
        image.options.set("subformat", "streamOptimized");
        image.options.set("adapter_type", "lsilogic");
        image.file = bytes;
        co_await vmdk->create(context(), std::move(image));
        node = co_await request.open_over(bytes, "vmdk");
      },
      [&] { return bytes->close(); });
  disk_ = node.get();
  add_child("disk", std::move(node), ChildRole::kExtent);
  mutable_limits().cluster_bytes = disk_->limits().cluster_bytes;
  set_length(disk_->length());
}

Task<NodePtr> OvaNode::open_spool(const UnnamedFile& spool, bool writable) {
  OpenRequest open;
  open.display = "temporary file";
  open.image_opts = true;
  open.options.set("driver", "file");
  open.options.set("filename", spool.path());
  open.options.set("locking", "off");
  open.flags.writable = writable;
  open.flags.resize = writable;
  open.flags.cache.no_flush = true;
  NodePtr node = co_await open_node(context(), std::move(open));
  co_return node;
}

std::vector<std::byte> OvaNode::encode_cluster(ByteSpan plain) const {
  return compressed_writer(*disk_)->encode_cluster(plain);
}

Task<void> OvaNode::write_encoded(uint64_t offset, ByteSpan encoded, ByteSpan plain) {
  if (!spool_) throw Error::system(EACCES, filename() + ": the image is open read-only");
  written_.store(true, std::memory_order_relaxed);
  co_await compressed_writer(*disk_)->write_encoded(offset, encoded, plain);
}

Task<void> OvaNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  written_.store(true, std::memory_order_relaxed);
  co_await disk_->write(offset, in, flags);
}

// What was never written is zeroes already, and so is what fills up the last piece that was.
Task<void> OvaNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  const uint64_t grain = disk_->limits().cluster_bytes;
  std::vector<std::byte> content;
  while (length != 0) {
    const Extent there = co_await disk_->layer_extent_at(offset, length);
    uint64_t part = there.length;
    if (there.data) {
      part = std::min(part, grain - offset % grain);
      content.resize(part);
      co_await disk_->read(offset, content);
      if (!is_zero(content)) break;
    }
    offset += part;
    length -= part;
  }
  if (length == 0) co_return;
  written_.store(true, std::memory_order_relaxed);
  co_await disk_->write_zeroes(offset, length, flags);
}

Task<void> OvaNode::do_close() {
  if (!spool_) co_return;
  if (!written_.load(std::memory_order_relaxed)) co_return;
  uint64_t populated = 0;
  for (uint64_t at = 0; at < length();) {
    const Extent extent = co_await disk_->layer_extent_at(at, length() - at);
    if (extent.data) populated += extent.length;
    at += extent.length;
  }
  co_await disk_->close();
  NodePtr bytes = co_await open_spool(*spool_, false);
  std::exception_ptr error;
  try {
    co_await pack(*bytes, populated);
  } catch (...) {
    error = std::current_exception();
  }
  co_await bytes->close();
  if (error) std::rethrow_exception(error);
}

Task<void> OvaNode::pack(Node& disk, uint64_t populated) {
  const std::string stem = stem_of(members_.front().name);
  DiskFile content;
  content.name = disk_file_;
  content.bytes = disk.length();
  content.populated = populated;
  co_await file_->resize({.length = 0});
  Packer packer(*file_);
  co_await packer.add_text(members_.front().name, with_file(descriptor_, content));
  co_await packer.add_file(disk_file_, disk);
  co_await packer.finish(stem + ".mf");
}

}  // namespace cairn
