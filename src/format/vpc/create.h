#pragma once

#include "block/driver.h"

// Making VHD images: fixed and dynamic ones as QEMU makes them, and differencing ones.
namespace cairn::vpc {

// The parent PATH as the image CHILD names it: from the child's directory, and from the root.
struct ParentPaths {
  std::string relative;
  std::string whole;
  static ParentPaths of(const std::string& path, const std::string& child);
};
// PATH as Windows writes it, in UTF-16.
std::vector<std::byte> windows_path(std::string path);

const OptionSchema& creation_options();
// Throws kInvalid and kTooLarge for OPTIONS that make no disk of SIZE bytes.
void check_creation(const Context& context, const Options& options, uint64_t size);
Task<void> create(Context& context, CreateRequest request);

}  // namespace cairn::vpc
