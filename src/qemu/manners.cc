#include "qemu/manners.h"

namespace cairn::qemu {

Manners manners_of(std::string_view program) {
  for (const std::string_view tool : {"qemu-storage-daemon", "qemu-io", "qemu-nbd", "qemu-img"})
    if (program.find(tool) != std::string_view::npos)
      return {.tool = tool,
              .guards = false,
              .own_words = false,
              .whole_options = false,
              .explains = false,
              .plain_sizes = false,
              .endings = false,
              .bars = false,
              .asks = false,
              .escapes = false,
              .counts_data = true};
  return {};
}

std::string version_text(std::string_view tool, std::string_view program,
                         std::string_view version) {
  const std::string begin =
      tool == "qemu-nbd" ? std::string(program) + " 10.0.2" : std::string(tool) + " version 10.0.2";
  return begin + " (Cairn " + std::string(version) + ")\nCopyright the Cairn authors\n";
}

std::string help_text(std::string_view version, const std::vector<HelpRow>& verbs,
                      std::string_view formats) {
  std::string text = std::string(version) +
                     "usage: qemu-img [standard options] command [command options]\n\n"
                     "    '-h', '--help'       display this help and exit\n"
                     "    '-V', '--version'    output version information and exit\n"
                     "    '-T', '--trace'      accepted for compatibility\n\nCommand syntax:\n";
  for (const HelpRow& verb : verbs) text += "  " + verb.name + " " + verb.text + "\n";
  return text + "\nSupported formats:" + std::string(formats) + "\n";
}

std::string verb_help_text(std::string_view program, const HelpRow& verb, std::string_view summary,
                           const std::vector<HelpRow>& options, std::string_view formats) {
  std::string text = "Usage: " + std::string(program) + " " + verb.name + " " + verb.text + "\n" +
                     std::string(summary) + "\n\nOptions:\n";
  for (const HelpRow& option : options) {
    std::string names = option.name;
    if (names.size() < 30) names.resize(30, ' ');
    text += "  " + names + " " + option.text + "\n";
  }
  return text + "\nSupported formats:" + std::string(formats) + "\n";
}

}  // namespace cairn::qemu
