#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/presets.h"
#include "cli/session.h"
#include "job/convert.h"

namespace cairn::cli {

// The command line of `convert`, checked.
struct ConvertPlan {
  std::vector<OpenRequest> sources;
  std::string target;
  std::string format;  // of the target; empty: looked for
  bool create = true;
  bool target_image_opts = false;
  CacheMode target_cache;
  Options create_options;
  bool quiet = false;
  ConvertOptions job;
  bool given_zero = false;
  bool bitmaps = false;
  bool skip_broken_bitmaps = false;
  bool all_snapshots = false;
  std::optional<std::string> snapshot;  // which one of the source is read
  std::string hash;                     // the algorithm of the digest that is printed; empty: none
  bool verify = false;
  bool to_pipe = false;                // the target is standard output
  bool streamed = false;               // a raw disk from standard input goes on as it comes
  std::optional<uint64_t> level;       // of compression
  const Preset* preset = nullptr;      // of --for
  const PresetImage* image = nullptr;  // what of it is made
};

// Fails at what goes wrong with names most often, before anything is touched.
void check_names(const Session& session, const Arguments& arguments);
// The format and its options, where an image will be created.
void plan_creation(Session& session, const Arguments& arguments, Options options, size_t sources,
                   ConvertPlan& plan);
// Whether standard input, if a raw disk comes from it, can go on as it comes. Fails at options that
// standard output as the target cannot have.
void plan_pipes(const Session& session, const Arguments& arguments, ConvertPlan& plan);
// The format and its options that --for asks for.
void plan_preset(const Session& session, const Arguments& arguments, Options& options,
                 ConvertPlan& plan);

}  // namespace cairn::cli
