#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::vmdk {

constexpr uint32_t kNoParent = 0xffffffff;

enum class Access : uint8_t { kReadWrite, kReadOnly, kNone };
enum class ExtentType : uint8_t { kFlat, kVmfs, kSparse, kVmfsSparse, kSeSparse, kZero };
std::string_view to_string(ExtentType type);

// One piece of the disk as its line in the descriptor has it.
struct ExtentLine {
  Access access = Access::kReadWrite;
  uint64_t sectors = 0;
  ExtentType type = ExtentType::kSparse;
  std::string file;     // as written; empty for ZERO
  uint64_t offset = 0;  // FLAT: first sector of the piece in the file
};

// The text that describes a disk. Lines that are not understood stay as they are.
class Descriptor {
 public:
  // Reads TEXT up to its first NUL. EMBEDDED: the extent lines and the type do not count. Throws
  // kInvalid that names the key or the line.
  static Descriptor parse(std::string text, bool embedded);

  const std::string& text() const { return text_; }
  unsigned version() const { return version_; }
  uint32_t cid() const { return cid_; }
  uint32_t parent_cid() const { return parent_cid_; }
  const std::string& create_type() const { return create_type_; }
  const std::string& parent_hint() const { return parent_hint_; }
  const std::vector<ExtentLine>& extents() const { return extents_; }

  // Each changes text() and the value.
  void set_cid(uint32_t cid);
  // An empty HINT removes the parent.
  void set_parent(const std::string& hint, uint32_t cid);
  // Removes the line of KEY when there is one.
  void drop(std::string_view key);

 private:
  void set_hex(std::string_view key, uint32_t value);
  std::string text_;
  unsigned version_ = 1;
  uint32_t cid_ = 0;
  uint32_t parent_cid_ = kNoParent;
  std::string create_type_;
  std::string parent_hint_;
  std::vector<ExtentLine> extents_;
};

// The value of KEY in the descriptor TEXT, without quotes; empty when there is none.
std::string database_value(std::string_view text, std::string_view key);

// What a fresh descriptor says.
struct DescriptorPlan {
  uint32_t cid = 0;
  uint32_t parent_cid = kNoParent;
  std::string create_type;
  std::string parent_hint;
  std::vector<std::string> extent_lines;
  std::string hardware_version;
  std::string adapter;
  std::string tools_version;
  uint64_t sectors = 0;
};
std::string compose(const DescriptorPlan& plan);

// A fresh content ID: never one of those with a meaning.
uint32_t random_cid();

// True when HEAD, the start of a file, is that of a descriptor.
bool looks_like_descriptor(std::string_view head);

}  // namespace cairn::vmdk
