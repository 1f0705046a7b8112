#pragma once

#include <cstdint>
#include <cstring>

#include "base/bytes.h"

// What the decoders of this room that are our own share: input that cannot be read past its end and
// output that copies from itself. Everything here throws kCorrupt when a stream asks for more.
namespace cairn::codec {

// Throws kCorrupt; WHAT is a sentence for people.
[[noreturn]] void damaged(const char* what);

class Input {
 public:
  explicit Input(ByteSpan bytes) : bytes_(bytes) {}
  size_t left() const { return bytes_.size(); }
  uint8_t byte() { return static_cast<uint8_t>(take(1)[0]); }
  uint16_t le16() { return load_le<uint16_t>(take(2), 0); }
  uint16_t be16() { return load_be<uint16_t>(take(2), 0); }
  uint32_t le32() { return load_le<uint32_t>(take(4), 0); }
  ByteSpan take(size_t count) {
    if (count > bytes_.size()) damaged("A compressed stream is cut.");
    const ByteSpan part = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return part;
  }

 private:
  ByteSpan bytes_;
};

class Window {
 public:
  explicit Window(MutableByteSpan out) : out_(out) {}
  size_t made() const { return made_; }
  size_t room() const { return out_.size() - made_; }

  void literals(ByteSpan bytes) {
    if (bytes.empty()) return;
    make_room(bytes.size());
    std::memcpy(out_.data() + made_, bytes.data(), bytes.size());
    made_ += bytes.size();
  }
  // Repeats LENGTH bytes from DISTANCE bytes ago; they may overlap what is made of them.
  void match(size_t distance, size_t length) {
    if (distance == 0 || distance > made_)
      damaged("A compressed stream refers to data before its beginning.");
    make_room(length);
    std::byte* to = out_.data() + made_;
    const std::byte* from = to - distance;
    if (distance >= length)
      std::memcpy(to, from, length);
    else
      for (size_t i = 0; i < length; ++i) to[i] = from[i];
    made_ += length;
  }

 private:
  void make_room(size_t count) const {
    if (count > room()) damaged("A compressed stream is longer than it should be.");
  }
  MutableByteSpan out_;
  size_t made_ = 0;
};

}  // namespace cairn::codec
