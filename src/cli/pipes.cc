#include "cli/pipes.h"

#include <algorithm>
#include <cstdio>

#include "cli/system.h"
#include "cli/verbs.h"
#include "platform/system.h"

namespace cairn::cli {
namespace {

constexpr std::string_view kReaders[] = {"compare", "convert", "dd", "hash"};

}  // namespace

bool is_pipe(const Session& session, std::string_view name) {
  return session.manners.own_words && name == "-";
}

void check_pipes(const Session& session, const Verb& verb, const Arguments& arguments) {
  std::vector<std::string> words = arguments.words();
  // What follows the image there is none.
  if (!words.empty() && (verb.name == "bitmap" || verb.name == "resize")) words.resize(1);
  const auto pipes = std::count(words.begin(), words.end(), "-");
  const bool options = arguments.has(kImageOpts);
  if (!session.manners.own_words || pipes == 0 || options) return;
  const bool target = words.back() == "-";
  const auto refuse = [&](const std::string& text, const std::string& hint) {
    throw Error(ErrorKind::kUnsupported, text).hint(hint);
  };
  if (verb.name == "restore" && target && pipes == 1) return;
  if (std::find(std::begin(kReaders), std::end(kReaders), verb.name) == std::end(kReaders))
    refuse("'-' is standard input and output, which `" + std::string(verb.name) + "` cannot use",
           "Save the image as a file first; './-' is a file of that name.");
  if (arguments.value(kKeyFile) == "-" && pipes - (verb.name == "convert" && target ? 1 : 0) > 0)
    refuse("standard input cannot be the image and the key file at once",
           "Save one of them as a file first.");
  if (pipes - (verb.name == "convert" && target ? 1 : 0) > 1)
    refuse("'-' is standard input, which can be read once only", "Save it as a file first.");
}

int take_standard_output(const std::string& format) {
  if (platform::is_terminal(STDOUT_FILENO))
    throw Error(ErrorKind::kInvalid, "'-' is standard output, which is a terminal")
        .hint("Send the " + format +
              " image on: cairn … - | PROGRAM, or cairn … - >FILE; './-' is "
              "a file of that name.");
  std::fflush(stdout);
  return separate_standard_output();
}

}  // namespace cairn::cli
