#include "cli/convert_report.h"

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
  if (asked.preset != nullptr) out.set("preset", asked.preset->name);
  print_report(session, out);
}

}  // namespace

void report_conversion(const Session& session, const ConvertReport& asked,
                       const operation::ConversionResult& done) {
  if (session.json) return report_json(session, asked, done);
  if (!asked.algorithm.empty()) print(done.digest + "  " + asked.names.back() + "\n");
  if (asked.quiet) return;
  if (asked.preset != nullptr)
    print("Ready for " + std::string(asked.preset->title) + ": " + std::string(asked.image->ready) +
          ".\n");
  if (asked.verified) print("Verified: the target has the content of the source.\n");
}

}  // namespace cairn::cli
