#pragma once

#include "cli/session.h"
#include "operation/conversion.h"

namespace cairn::cli {

// The command line of `convert`, checked.
using ConvertPlan = operation::ConversionOptions;

// Fails at what goes wrong with names most often, before anything is touched.
void check_names(const Session& session, const Arguments& arguments);
// The format and its options, where an image will be created.
void plan_creation(Session& session, const Arguments& arguments, Options options, size_t sources,
                   ConvertPlan& plan);
// Whether standard input, if a raw disk comes from it, can go on as it comes. Fails at options that
// standard output as the target cannot have.
void plan_pipes(const Session& session, const Arguments& arguments, ConvertPlan& plan);
// What --resume asks for. Fails at what cannot go on later.
void plan_resumption(const Session& session, const Arguments& arguments, ConvertPlan& plan);
// The format and its options that --for asks for.
void plan_preset(const Session& session, const Arguments& arguments, Options& options,
                 ConvertPlan& plan);

}  // namespace cairn::cli
