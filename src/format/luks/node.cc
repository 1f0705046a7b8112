#include "format/luks/node.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/luks2_volume.h"

namespace cairn {

LuksNode::LuksNode(Context& context, const Driver& driver, NodePtr file, NodePtr header)
    : FormatOf(context, driver, std::move(file)), header_(header.get()) {
  if (header) add_child("header", std::move(header), ChildRole::kFile);
}

Task<void> LuksNode::load(OpenContext& request) {
  set_read_only(!request.flags.writable);
  Node* head = header_ != nullptr ? header_ : file_;
  const Secret* passphrase = nullptr;
  const auto find_passphrase = [&] {
    if (!request.flags.metadata_only)
      passphrase = &context().secrets().for_image(request.options, "key-secret", "key-secret",
                                                  file_->filename(), false);
  };
  if (context().profile.keys_first) find_passphrase();
  std::shared_ptr<const SectorCipher> cipher;
  std::optional<uint64_t> size;
  const bool second = co_await Luks2Volume::is_there(*head);
  if (second) {
    const Luks2Volume volume = co_await Luks2Volume::read(*head, header_ != nullptr);
    luks2_info_ = volume.describe();
    payload_offset_ = volume.payload_offset();
    size = volume.payload_bytes();
    find_passphrase();
    if (passphrase != nullptr) cipher = co_await volume.unlock(*passphrase);
  } else {
    const LuksArea area{.node = head};
    volume_ = co_await LuksVolume::read(area, header_ != nullptr);
    payload_offset_ = volume_->header().payload_offset;
    find_passphrase();
    if (passphrase != nullptr) {
      co_await volume_->unlock(*passphrase);
      cipher = volume_->cipher();
    }
  }
  request.options.mark_used("key-secret");
  const uint64_t end = align_up(file_->length(), 512);
  if (payload_offset_ > end || (size && *size > end - payload_offset_))
    throw Error(ErrorKind::kIo, "Could not refresh total sector count: Input/output error")
        .hint(fmt::format("The payload, which begins at {}, is past the end of the file.",
                          payload_offset_));
  fixed_ = size.has_value();
  const uint32_t sector = cipher ? cipher->sector_bytes() : 512;
  set_length(align_down(size.value_or(end - payload_offset_), sector));
  mutable_limits().request_alignment = 512;
  mutable_limits().zero_alignment = sector;
  if (cipher) set_payload_cipher(std::move(cipher), CipherOffset::kGuest);
}

Task<Mapping> LuksNode::map(uint64_t offset, uint64_t length) {
  Mapping mapping;
  mapping.kind = Mapping::Kind::kChild;
  mapping.length = length;
  mapping.host = file_;
  mapping.host_offset = payload_offset_ + offset;
  co_return mapping;
}

Task<Grant> LuksNode::grant(uint64_t offset, uint64_t length, bool) {
  Grant grant;
  grant.offset = offset;
  grant.length = length;
  grant.host = file_;
  grant.host_offset = payload_offset_ + offset;
  grant.copy_begin = offset;
  grant.copy_end = offset + length;
  co_return grant;
}

Task<void> LuksNode::do_resize(ResizeRequest request) {
  if (fixed_)
    throw Error(ErrorKind::kUnsupported, "The size of this LUKS2 segment is fixed by its header");
  const auto end = checked_add(request.length, payload_offset_);
  if (!end || *end > static_cast<uint64_t>(INT64_MAX))
    throw Error(ErrorKind::kTooLarge, "The requested file size is too large");
  const uint64_t length = request.length;
  request.length = *end;
  co_await file_->resize(request);
  set_length(length);
}

Task<void> LuksNode::amend(AmendRequest request) {
  if (!volume_)
    throw Error(ErrorKind::kUnsupported,
                "Key slots of LUKS2 images cannot be changed by this program; use cryptsetup");
  co_await volume_->amend(context(), request.options, request.force);
}

Value LuksNode::specific_info() const {
  if (!volume_) return luks2_info_;
  Value data = Value::object();
  volume_->describe(data);
  return data;
}

}  // namespace cairn
