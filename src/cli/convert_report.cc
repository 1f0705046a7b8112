#include "cli/convert_report.h"

#include "cli/report.h"

namespace cairn::cli {
namespace {

void report_json(const Session& session, const ConvertReport& done) {
  Value out = Value::object();
  out.set("sources", array_of({done.names.begin(), done.names.end() - 1}));
  out.set("target", done.names.back());
  out.set("format", done.format);
  out.set("virtual-size", done.bytes);
  out.set("verified", done.verified);
  if (!done.algorithm.empty()) {
    out.set("algorithm", done.algorithm);
    out.set("digest", done.digest);
  }
  if (done.preset != nullptr) out.set("preset", done.preset->name);
  print_report(session, out);
}

}  // namespace

void report_conversion(const Session& session, const ConvertReport& done) {
  if (session.json) return report_json(session, done);
  if (!done.algorithm.empty()) print(done.digest + "  " + done.names.back() + "\n");
  if (done.quiet) return;
  if (done.preset != nullptr)
    print("Ready for " + std::string(done.preset->title) + ": " + std::string(done.image->ready) +
          ".\n");
  if (done.verified) print("Verified: the target has the content of the source.\n");
}

}  // namespace cairn::cli
