#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/context.h"
#include "block/unnamed_file.h"

namespace cairn::operation {

// Empty temporary files for what will be unpacked, made before a process gives up making files: one
// for each regular file of READABLE and MORE of them. Context::unpacking names them and allows no
// others; a reader that gets none is refused with an error. They go with the object.
class Spools {
 public:
  // MOST: the bytes that may be unpacked; none: a hundred times the sources and 1 GiB.
  Spools(Context& context, const std::vector<std::string>& readable, unsigned more,
         std::optional<uint64_t> most);

 private:
  std::vector<std::unique_ptr<UnnamedFile>> files_;
};

}  // namespace cairn::operation
