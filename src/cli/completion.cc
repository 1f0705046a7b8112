#include "cli/completion_script.h"
#include "cli/help.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

int run_completion(Session& session, Arguments& arguments) {
  const std::vector<std::string>& words = arguments.words();
  if (words.size() != 1 || (words[0] != "bash" && words[0] != "zsh"))
    throw UsageError{"Expecting bash or zsh"};
  const std::string script =
      completion_script(session.context.registry(), words[0] == "zsh" ? Shell::kZsh : Shell::kBash);
  session.say(script);
  if (session.json) {
    Value out = Value::object();
    out.set("script", script);
    print_report(session, out);
  }
  return 0;
}

}  // namespace

Verb completion_verb() {
  return {.name = "completion",
          .summary = "prints what a shell needs to complete command lines of cairn",
          .synopsis = "bash | zsh",
          .flags = {},
          .run = run_completion,
          .own = true};
}

}  // namespace cairn::cli
