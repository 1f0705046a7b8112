#include "cli/convert_plan.h"

#include <cstdio>

#include "block/capabilities/capabilities.h"
#include "block/driver.h"
#include "cli/help.h"
#include "cli/pipes.h"
#include "cli/verbs.h"
#include "platform/file.h"

namespace cairn::cli {
namespace {

// What neither the format nor the protocol of the target knows.
void check_creation_options(const Session& session, const Driver& driver, const Options& options,
                            const ConvertPlan& plan) {
  const Driver& protocol = protocol_for_target(session, plan.target);
  const auto knows = [&](const Driver& one, std::string_view key) {
    for (const OptionSpec& spec : one.create_options())
      if (spec.name == key) return session.context.profile.offers(spec);
    return key == "compression_level" && session.manners.own_words &&
           one.offers<CompressedWriter>();
  };
  for (const auto& [key, value] : options.items())
    if (key != "backing_file" && key != "backing_fmt" && !knows(driver, key) &&
        !knows(protocol, key))
      fail(session, "Invalid parameter '" + key + "'");
}

}  // namespace

void check_names(const Session& session, const Arguments& arguments) {
  const auto& words = arguments.words();
  const bool options = arguments.has(kImageOpts);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& name = words[i];
    const bool target = i + 1 == words.size();
    if (target ? arguments.has(kTargetImageOpts) : options) continue;
    const auto status = platform::status(name);
    if (name.empty()) fail(session, "A file name is empty");
    if (name == "-") continue;
    if (status && (status->type == platform::FileType::kPipe ||
                   status->type == platform::FileType::kSocket)) {
      session.error(target ? "'" + name + "' is a stream: an image is not written from begin to end"
                           : "'" + name + "' is a stream: images are read at any place");
      std::fprintf(stderr,
                   target ? "Name a file, or send the image there: cairn convert SOURCE - >%s\n"
                          : "Save it as a file first, or read it as standard input: cairn convert "
                            "- TARGET <%s\n",
                   name.c_str());
      throw Exit{};
    }
    if (status && status->is_directory() &&
        (target || image_in_folder(session.context, name) == name))
      fail(session, "'" + name + "' is a directory, not an image");
    if (!target && !options && !arguments.has(kTargetImageOpts) && same_file(name, words.back()))
      fail(session, "'" + name + "' is source and target at once; give the target another name");
  }
}

void plan_creation(Session& session, const Arguments& arguments, Options options, size_t sources,
                   ConvertPlan& plan) {
  const Driver* driver = session.context.registry().find(plan.format);
  if (driver == nullptr) fail(session, unknown_format(session, plan.format));
  if (!driver->abilities().create)
    fail(session, "Format driver '" + plan.format + "' does not support image creation");
  options.erase("size");
  check_creation_options(session, *driver, options, plan);
  if (const auto backing = arguments.value('B')) options.set("backing_file", *backing);
  if (const auto format = arguments.value('F')) options.set("backing_fmt", *format);
  if (session.untrusted && plan.format == "ova")
    fail(session,
         "making an appliance takes a temporary file, which the work with untrusted images may not "
         "have: convert to another format first, and that to this one");
  const bool backing = options.has("backing_file");
  if (!driver->offers<BackingLink>() && (backing || options.has("backing_fmt")))
    fail(session, std::string(backing ? "Backing file" : "Backing file format") +
                      " not supported for file format '" + plan.format + "'");
  if (backing && sources > 1)
    fail(session,
         "Having a backing file for the target makes no sense when concatenating multiple input "
         "images");
  if (backing && !options.has("backing_fmt"))
    fail(session, "Use of backing file requires explicit backing format");
  if (arguments.has(kAllSnapshots)) {
    if (!driver->offers<SnapshotStore>())
      fail(session, "Format driver '" + plan.format + "' keeps no internal snapshots");
    if (options.has("data_file"))
      fail(session, "Images with an external data file keep no internal snapshots");
    if (backing)
      fail(session, "--all-snapshots copies whole disks: the target cannot have a backing file");
  }
  plan.level = take_compression_level(session, *driver, options);
  if (plan.level && !plan.job.compress) fail(session, "compression_level has no effect without -c");
  if (plan.job.compress) {
    const bool flat = options.string("subformat").value_or("").ends_with("Flat");
    if (!driver->offers<CompressedWriter>() || flat)
      fail(session, "Compression not supported for this file format");
    if (options.has("encryption") || options.has("encrypt.format"))
      fail(session, "Compression and encryption not supported at the same time");
    const auto preallocation = options.string("preallocation");
    if (preallocation && *preallocation != "off")
      fail(session, "Compression and preallocation not supported at the same time");
  }
  plan.create_options = std::move(options);
}

void plan_pipes(const Session& session, const Arguments& arguments, ConvertPlan& plan) {
  const bool to_pipe = is_pipe(session, plan.target) && !plan.opened_as;
  if (to_pipe) {
    const auto refuse = [&](const char* option, const std::string& why) {
      fail(session, std::string(option) + " cannot be used with standard output: " + why);
    };
    if (!plan.create) refuse("-n", "nothing is there");
    if (plan.verify) refuse("--verify", "what was sent cannot be read back");
    if (arguments.has(kFor)) refuse("--for", "the image is checked after it was made");
    if (plan.bitmaps) refuse("--bitmaps", "they are stored after the data");
    if (plan.all_snapshots) refuse("--all-snapshots", "they are not written from begin to end");
    if (plan.job.out_of_order) refuse("-W", "it is written from begin to end");
    if (plan.job.copy_offload) refuse("-C", "the kernel does not copy there");
    if (arguments.has('B')) refuse("-B", "a backing file is found from the file's directory");
    if (arguments.has(kOverwrite)) refuse("--overwrite", "it is no file");
    plan.take_output = [format = plan.format] { return take_standard_output(format); };
  }
  bool plain = plan.sources.size() == 1 && is_pipe(session, plan.sources[0].filename) &&
               plan.create && plan.format == "raw" && plan.create_options.empty() && !plan.snapshot;
  for (const int option :
       {int{'B'}, int{'C'}, int{'c'}, int{'l'}, int{'r'}, int{'S'}, int{kDisk}, int{kFor},
        int{kVerify}, int{kBitmaps}, int{kAllSnapshots}, int{kSalvage}})
    plain = plain && !arguments.has(option);
  const auto status = platform::status(plan.target);
  const bool device = status && !status->is_regular();
  plan.streamed =
      plain && (to_pipe || (!device && protocol_of(session.context, plan.target).name() == "file"));
}

void plan_resumption(const Session& session, const Arguments& arguments, ConvertPlan& plan) {
  const auto refuse = [&](const std::string& what, const std::string& why) {
    fail(session, what + " cannot be used with --resume: " + why);
  };
  if (session.untrusted) refuse("--untrusted", "it keeps a file next to the target");
  if (arguments.has(kHash))
    refuse("--hash", "it needs all bytes in one run; `cairn hash` reads them from the target");
  if (arguments.has(kBitmaps)) refuse("--bitmaps", "they are stored after the data");
  if (arguments.has(kAllSnapshots)) refuse("--all-snapshots", "it copies one after the other");
  if (plan.target_cache.no_flush) refuse("-t unsafe", "what is done has to be on stable storage");
  if (plan.take_output) refuse("standard output", "what was sent cannot be sent again");
  for (const OpenRequest& source : plan.sources)
    if (is_pipe(session, source.filename)) refuse("standard input", "it cannot be read again");
  plan.streamed = false;
  plan.resume = arguments.value_or(kResume, "");
}

void plan_preset(const Session& session, const Arguments& arguments, Options& options,
                 ConvertPlan& plan) {
  plan.preset = &operation::find_preset(arguments.value_or(kFor, ""));
  if (!plan.create) fail(session, "--for makes a new image: -n cannot be used with it");
  const std::string by_name = plan.target.ends_with(".tar.gz")
                                  ? "tar.gz"
                                  : format_of_name(session.context.registry(), plan.target);
  plan.image = &operation::choose_image(*plan.preset, plan.target, by_name, arguments.value('O'),
                                        plan.job.compress, options);
  plan.format = plan.image->format;
}

}  // namespace cairn::cli
