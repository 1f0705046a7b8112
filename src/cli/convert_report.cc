#include "cli/convert_report.h"

#include <fmt/core.h>

#include "cli/report.h"

namespace cairn::cli {
namespace {

void report_json(const Session& session, const ConvertReport& asked,
                 const operation::ConversionResult& done) {
  Value out = Value::object();
  out.set("sources", array_of({asked.names.begin(), asked.names.end() - 1}));
  out.set("target", asked.names.back());
  out.set("format", done.format);
  out.set("virtual-size", done.bytes);
  out.set("verified", asked.verified);
  if (!asked.algorithm.empty()) {
    out.set("algorithm", asked.algorithm);
    out.set("digest", done.digest);
  }
  if (asked.salvaged) {
    Value lost = Value::array();
    for (const LostRanges::Range& range : done.lost) {
      Value one = Value::object();
      one.set("offset", range.offset);
      one.set("bytes", range.bytes);
      one.set("cause", range.cause);
      lost.push_back(std::move(one));
    }
    out.set("lost", std::move(lost));
    out.set("lost-bytes", done.lost_bytes);
  }
  if (asked.resumable) out.set("resumed-at", done.resumed_at);
  if (asked.preset != nullptr) out.set("preset", asked.preset->name);
  print_report(session, out);
}

constexpr size_t kRangesShown = 20;

void warn_of_lost(const Session& session, const operation::ConversionResult& done) {
  uint64_t shown = 0;
  for (size_t i = 0; i < std::min(done.lost.size(), kRangesShown); ++i) {
    const LostRanges::Range& range = done.lost[i];
    session.warning(fmt::format("error while reading offset {}: {} ({} bytes became zeroes)",
                                range.offset, range.cause, range.bytes));
    shown += range.bytes;
  }
  if (shown != done.lost_bytes)
    session.warning(fmt::format("in further places {} bytes became zeroes{}",
                                done.lost_bytes - shown,
                                session.json ? "" : "; --output json lists them"));
}

}  // namespace

void report_conversion(const Session& session, const ConvertReport& asked,
                       const operation::ConversionResult& done) {
  if (!asked.quiet) warn_of_lost(session, done);
  if (session.json) return report_json(session, asked, done);
  if (!asked.algorithm.empty()) print(done.digest + "  " + asked.names.back() + "\n");
  if (asked.quiet) return;
  if (asked.preset != nullptr)
    print("Ready for " + std::string(asked.preset->title) + ": " + std::string(asked.image->ready) +
          ".\n");
  if (asked.verified) print("Verified: the target has the content of the source.\n");
}

}  // namespace cairn::cli
