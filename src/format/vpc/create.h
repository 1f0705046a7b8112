#pragma once

#include "block/driver.h"

// Making VHD images: fixed and dynamic ones as QEMU makes them, and differencing ones.
namespace cairn::vpc {

const OptionSchema& creation_options();
// Throws kInvalid and kTooLarge for OPTIONS that make no disk of SIZE bytes.
void check_creation(const Context& context, const Options& options, uint64_t size);
Task<void> create(Context& context, CreateRequest request);

}  // namespace cairn::vpc
