#include "operation/map.h"

#include <cstdio>

#include "cli/progress.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

using operation::MapPiece;

class Printer {
 public:
  Printer(Session& session, bool json) : session_(session), json_(json) {
    if (!json) {
      char line[80];
      std::snprintf(line, sizeof line, "%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to",
                    "File");
      print(line);
    }
  }

  void add(const MapPiece& piece) {
    if (json_)
      add_json(piece);
    else
      add_line(piece);
  }
  void finish() {
    if (json_) print("]\n");
  }

 private:
  void add_json(const MapPiece& piece) {
    const auto word = [](bool value) { return value ? "true" : "false"; };
    const Extent& extent = piece.extent;
    char line[400];
    std::snprintf(
        line, sizeof line,
        "%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": %s, "
        "\"data\": %s, \"compressed\": %s",
        first_ ? "[" : ",\n", static_cast<unsigned long long>(piece.start),
        static_cast<unsigned long long>(extent.length), extent.depth,
        word(extent.allocated && (extent.data || extent.zero)), word(extent.zero),
        word(extent.data), word(extent.compressed));
    std::string text = line;
    if (extent.host != nullptr) text += ", \"offset\": " + std::to_string(extent.host_offset);
    print(text + "}");
    first_ = false;
  }

  void add_line(const MapPiece& piece) {
    const Extent& extent = piece.extent;
    if (!extent.data || extent.zero) return;
    if (extent.host == nullptr || extent.compressed)
      fail(session_, "File contains external, encrypted or compressed clusters.");
    char line[80];
    std::snprintf(line, sizeof line, "%#-16llx%#-16llx%#-16llx",
                  static_cast<unsigned long long>(piece.start),
                  static_cast<unsigned long long>(extent.length),
                  static_cast<unsigned long long>(extent.host_offset));
    print(line + extent.host->filename() + "\n");
  }

  Session& session_;
  bool json_;
  bool first_ = true;
};

int run_map(Session& session, Arguments& arguments) {
  const bool json = json_output(session, arguments);
  uint64_t start = 0;
  uint64_t most = UINT64_MAX;
  if (const auto text = arguments.value('s')) start = size_argument(session, *text, "start offset");
  if (const auto text = arguments.value('l')) most = size_argument(session, *text, "max length");
  if (arguments.words().size() != 1) throw UsageError{"Expecting one image file name"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  OpenRequest request =
      image_request(session, arguments, arguments.words()[0], arguments.value('f'));
  Progress progress(session, arguments.has('p'), false, 1, Progress::Start::kBesideResults);
  std::optional<Printer> printer;
  operation::MapOptions options{.start = start,
                                .most = most,
                                .found = [&](const MapPiece& piece) { printer->add(piece); },
                                .opened = [&] { printer.emplace(session, json); }};
  const operation::Caller caller = session.caller(progress);
  run(session, operation::map(caller, std::move(request), std::move(options)));
  printer->finish();
  return 0;
}

}  // namespace

Verb map_verb() {
  return {
      .name = "map",
      .summary = "lists which ranges of a disk are allocated, and where",
      .synopsis =
          "[--object DEF] [--image-opts] [-f FMT] [-s OFFSET] [-l LENGTH] [--output=FMT] [-U] FILE",
      .flags = {kFormatFlag,
                kOutputFlag,
                {'s', "start-offset", "BYTES", "first byte of the range"},
                {'l', "max-length", "BYTES", "length of the range"},
                kForceShareFlag,
                kImageOptsFlag,
                kObjectFlag},
      .own_flags = {kDiskFlag, kProgressFlag},
      .run = run_map};
}

}  // namespace cairn::cli
