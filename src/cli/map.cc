#include <cstdio>

#include "cli/progress.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

struct Piece {
  uint64_t start = 0;
  Extent extent;
};

bool continues(const Piece& piece, const Extent& next, uint64_t at) {
  const Extent& last = piece.extent;
  if (piece.start + last.length != at) return false;
  if (last.zero != next.zero || last.data != next.data || last.compressed != next.compressed ||
      last.depth != next.depth || last.allocated != next.allocated || last.host != next.host)
    return false;
  return last.host == nullptr || last.host_offset + last.length == next.host_offset;
}

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

  void add(const Piece& piece) {
    if (json_)
      add_json(piece);
    else
      add_line(piece);
  }
  void finish() {
    if (json_) print("]\n");
  }

 private:
  void add_json(const Piece& piece) {
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

  void add_line(const Piece& piece) {
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

Task<void> walk(Session& session, NodePtr node, uint64_t at, uint64_t end, Printer& printer,
                Progress& progress) {
  const uint64_t begin = at;
  Piece piece{.start = at, .extent = {}};
  bool some = false;
  while (at < end) {
    session.cancel.check();
    Extent extent;
    try {
      extent = co_await node->extent_at(at, end - at);
    } catch (const Error& error) {
      throw Error(error.kind(), "Could not read file metadata: " + error.message());
    }
    if (some && continues(piece, extent, at)) {
      piece.extent.length += extent.length;
    } else {
      if (some) printer.add(piece);
      piece = {.start = at, .extent = extent};
      some = true;
    }
    at += extent.length;
    progress.update(at - begin, end - begin);
  }
  // An empty range is one empty piece.
  printer.add(piece);
  printer.finish();
}

Task<void> map_image(Session& session, OpenRequest request, uint64_t start, uint64_t most,
                     bool json, Progress& progress) {
  NodePtr node = co_await open_node(session.context, std::move(request));
  std::exception_ptr error;
  try {
    const uint64_t length = node->length();
    const uint64_t rest = start < length ? length - start : 0;
    Printer printer(session, json);
    co_await walk(session, node, start, start + std::min(most, rest), printer, progress);
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), error);
}

}  // namespace

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
  run(session, map_image(session, std::move(request), start, most, json, progress));
  return 0;
}

}  // namespace cairn::cli
