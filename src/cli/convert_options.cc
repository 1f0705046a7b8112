#include "cli/convert_options.h"

#include <fmt/core.h>

#include <cstdlib>

#include "cli/verbs.h"

namespace cairn::cli {
namespace {
constexpr uint64_t kMaxSparse = 16 << 20;
}  // namespace

ConvertOptions convert_job_options(const Session& session, const Arguments& arguments) {
  ConvertOptions job;
  job.compress = arguments.has('c');
  job.copy_offload = arguments.has('C');
  job.out_of_order = arguments.has('W');
  job.salvage = arguments.has(kSalvage);
  if (const auto text = arguments.value('m')) {
    char* end = nullptr;
    const unsigned long count = std::strtoul(text->c_str(), &end, 10);
    if (text->empty() || *end != 0 || count < 1 || count > 16)
      fail(session,
           "Invalid number of coroutines. Allowed number of coroutines is between 1 and 16");
    job.parallel = static_cast<unsigned>(count);
  }
  if (const auto text = arguments.value('S')) {
    const uint64_t bytes = size_argument(session, *text, "buffer size for sparse output");
    if (bytes % 512 != 0 || bytes > kMaxSparse)
      fail(session,
           fmt::format(
               "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 "
               "up to {}. Select 0 to disable sparse detection (fully allocates output).",
               kMaxSparse));
    job.sparse_bytes = bytes;
  }
  if (const auto text = arguments.value('r'))
    job.rate = size_argument(session, *text, "rate limit");
  return job;
}

void check_convert_conflicts(const Session& session, const Arguments& arguments) {
  const bool no_create = arguments.has('n');
  if (arguments.has('C') && arguments.has('c'))
    fail(session, "Cannot enable copy offloading when -c is used");
  if (arguments.has('C') && arguments.has('S'))
    fail(session, "Cannot enable copy offloading when -S is used");
  if (arguments.has('C') && arguments.has(kSalvage))
    fail(session, "Cannot use copy offloading in salvaging mode");
  if (arguments.has('C') && arguments.has(kHash))
    fail(session, "--hash needs to see the bytes: copy offloading (-C) cannot be used with it");
  if (arguments.has(kSalvage) && arguments.has(kVerify))
    fail(session, "--verify cannot compare with a source that is salvaged");
  if (arguments.has(kTargetImageOpts) && !no_create)
    fail(session, "--target-image-opts requires use of -n flag");
  if (arguments.has(kTargetIsZero) && !no_create)
    fail(session, "--target-is-zero requires use of -n flag");
  if (arguments.has('o') && no_create)
    fail(session, "-o has no effect when skipping image creation");
  if (arguments.has(kSkipBrokenBitmaps) && !arguments.has(kBitmaps))
    fail(session, "Use of --skip-broken-bitmaps requires --bitmaps");
  check_format_flags(session, arguments);
  if (arguments.has(kTargetImageOpts) && arguments.has('O'))
    fail(session, "--image-opts and --format are mutually exclusive");
  if (!arguments.has(kAllSnapshots)) return;
  const std::string wanted = "--all-snapshots copies the history of one image to a new one: ";
  for (const char letter : {'B', 'C', 'l', 'n', 'r', 'S'})
    if (arguments.has(letter)) fail(session, wanted + "-" + letter + " cannot be used with it");
  if (arguments.has(kSalvage)) fail(session, wanted + "--salvage cannot be used with it");
  if (arguments.has(kHash)) fail(session, wanted + "--hash cannot be used with it");
  if (arguments.words().size() > 2) fail(session, wanted + "it has one source");
}

}  // namespace cairn::cli
