#include "operation/bench.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

// What will be sent, printed once the image is open.
void announce(const Session& session, const BenchOptions& options) {
  char line[300];
  std::snprintf(
      line, sizeof line,
      "Sending %llu %s requests, %llu bytes each, %u in parallel (starting at offset %llu, step "
      "size %llu)\n",
      static_cast<unsigned long long>(options.count), options.write ? "write" : "read",
      static_cast<unsigned long long>(options.size), options.depth,
      static_cast<unsigned long long>(options.offset),
      static_cast<unsigned long long>(options.step));
  session.say(line);
  if (options.flush_interval != 0)
    session.say(fmt::format("Sending flush every {} requests\n", options.flush_interval));
  finish_output();
}

uint64_t count_argument(const Session& session, const std::string& text, std::string_view what,
                        uint64_t least, uint64_t most) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text.c_str(), &end, 0);
  if (text.empty() || *end != 0 || errno != 0 || text[0] == '-' || value < least || value > most)
    fail(session, "Invalid " + std::string(what) + " specified");
  return value;
}

void report(const Session& session, const std::string& name, const BenchOptions& options,
            double seconds) {
  const double requests = static_cast<double>(options.count);
  const double each = requests / std::max(seconds, 1e-9);
  Value out = Value::object();
  out.set("filename", name);
  out.set("operation", options.write ? "write" : "read");
  out.set("requests", options.count);
  out.set("request-bytes", options.size);
  out.set("depth", options.depth);
  out.set("workers", options.workers);
  out.set("offset", options.offset);
  out.set("step", options.step);
  out.set("flush-interval", options.flush_interval);
  out.set("seconds", seconds);
  out.set("requests-per-second", each);
  out.set("bytes-per-second", each * static_cast<double>(options.size));
  print_report(session, out);
}

int run_bench(Session& session, Arguments& arguments) {
  BenchOptions options;
  options.write = arguments.has('w');
  const auto& words = arguments.words();
  if (const auto text = arguments.value('c'))
    options.count = count_argument(session, *text, "request count", 1, INT32_MAX);
  if (const auto text = arguments.value('d'))
    options.depth =
        static_cast<unsigned>(count_argument(session, *text, "queue depth", 1, INT32_MAX));
  if (const auto text = arguments.value(kWorkers))
    options.workers = static_cast<unsigned>(count_argument(session, *text, "worker count", 1, 256));
  if (const auto text = arguments.value(kPattern))
    options.pattern =
        static_cast<std::byte>(count_argument(session, *text, "pattern byte", 0, 255));
  if (const auto text = arguments.value(kFlushInterval))
    options.flush_interval = count_argument(session, *text, "flush interval", 1, INT32_MAX);
  if (const auto text = arguments.value('o'))
    options.offset = size_argument(session, *text, "offset");
  if (const auto text = arguments.value('s'))
    options.size = size_argument(session, *text, "buffer size", 1, INT32_MAX);
  options.step = options.size;
  if (const auto text = arguments.value('S'))
    options.step = size_argument(session, *text, "step_size", 0, INT32_MAX);
  if (options.step == 0) options.step = options.size;
  bool native = false;
  for (const auto& [id, aio] : arguments.given()) {
    if (id == 'i' && aio != "threads" && aio != "native" && aio != "io_uring")
      fail(session, "Invalid aio option: " + aio);
    if (id == 'i' || id == 'n') native = id == 'n' || aio == "native";
  }
  options.drain = !arguments.has(kNoDrain);
  if (words.size() != 1) throw UsageError{"Expecting one image file name"};
  if (!options.write && options.flush_interval != 0)
    fail(session, "--flush-interval is only available in write tests");
  if (options.flush_interval != 0 && options.flush_interval < options.depth)
    fail(session, "Flush interval can't be smaller than depth");
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
  request.flags.writable = options.write;
  if (const auto cache = arguments.value('t')) {
    const auto mode = CacheMode::parse(*cache);
    if (!mode) fail(session, "Invalid cache mode");
    request.flags.cache = *mode;
  }
  if (native && !request.flags.cache.direct)
    fail(session, "Could not open '" + words[0] +
                      "': aio=native was specified, but it requires cache.direct=on, which was "
                      "not specified.");
  const bool overlay = arguments.has(kOverlay);
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1, Progress::Start::kWhenSlow);
  const double seconds =
      run(session, operation::bench(session.caller(progress), std::move(request), options, overlay,
                                    [&] { announce(session, options); }));
  progress.finish();
  if (session.json) report(session, words[0], options, seconds);
  char line[100];
  std::snprintf(line, sizeof line, "Run completed in %3.3f seconds.\n", seconds);
  session.say(line);
  return 0;
}

}  // namespace

Verb bench_verb() {
  return {
      .name = "bench",
      .summary = "measures requests per second on an image",
      .synopsis =
          "[-c COUNT] [-d DEPTH] [-f FMT] [-n] [-o OFFSET] [-q] [-s SIZE] [-S STEP] [-t CACHE] [-i "
          "AIO] [-w] "
          "[-U] [--image-opts] FILE",
      .flags = {{'c', "count", "N", "number of requests (75000)"},
                {'d', "depth", "N", "requests at a time (64)"},
                kFormatFlag,
                {kFlushInterval, "flush-interval", "N", "a flush after every N writes"},
                {'i', "aio", "threads|native|io_uring",
                 "accepted; the engine is chosen by CAIRN_ENGINE"},
                {'n', "native", nullptr, "as -i native"},
                {kNoDrain, "no-drain", nullptr, "flush without waiting for the requests under way"},
                {'o', "offset", "BYTES", "offset of the first request (0)"},
                {kPattern, "pattern", "BYTE", "byte to write (0)"},
                kQuietFlag,
                {'s', "buffer-size", "BYTES", "size of a request (4096)"},
                {'S', "step-size", "BYTES", "distance between requests (the size of one)"},
                {'t', "cache", "MODE", "none, writeback, writethrough, directsync or unsafe"},
                {'w', "write", nullptr, "write instead of read"},
                {kWorkers, "workers", "N", "threads that send requests (1)"},
                kForceShareFlag,
                kImageOptsFlag,
                kObjectFlag},
      .own_flags =
          {{kOverlay, "snapshot", nullptr,
            "writes go to a temporary overlay: the image stays as it is, and may be read-only"},
           kProgressFlag},
      .run = run_bench};
}

}  // namespace cairn::cli
