#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cairn::qemu {

// How the command line behaves, each rule by its name. Under the names of QEMU's tools it keeps to
// what scripts rely on.
struct Manners {
  // Which of QEMU's tools the program is; empty: itself.
  std::string_view tool = {};
  // What may lose content, or show it to others, is refused without --force or warned of; what an
  // image refers to is not opened only to be described.
  bool guards = true;
  // Verbs, options and values that QEMU's tools lack are known: "-" for pipes, "vhd" for vpc.
  bool own_words = true;
  // Long options are written in whole, so that new ones can be added; else they may be shortened.
  bool whole_options = true;
  // Messages say what was probably meant, and help is in groups with an example.
  bool explains = true;
  // Sizes are written and read as people write them: "20 GiB", "20GB".
  bool plain_sizes = true;
  // The ending of a target's name chooses its format.
  bool endings = true;
  // Progress is a bar where there is a terminal, with all phases of the work.
  bool bars = true;
  // A passphrase that is missing is asked for on the terminal.
  bool asks = true;
  // Characters that would change the terminal are shown as escapes.
  bool escapes = true;
  // The progress of a copy counts what is allocated, rather than the disk.
  bool counts_data = false;
};

// The manners of PROGRAM, the last part of the name by which it was called.
Manners manners_of(std::string_view program);

// What --version prints for TOOL, called as PROGRAM; VERSION is our own.
std::string version_text(std::string_view tool, std::string_view program, std::string_view version);

struct HelpRow {
  std::string name, text;
};
// The help of qemu-img, after its line VERSION: VERBS with their synopses.
std::string help_text(std::string_view version, const std::vector<HelpRow>& verbs,
                      std::string_view formats);
// That of the verb NAME: OPTIONS with what they do.
std::string verb_help_text(std::string_view program, const HelpRow& verb, std::string_view summary,
                           const std::vector<HelpRow>& options, std::string_view formats);

}  // namespace cairn::qemu
