#include "cli/cli.h"
#include "control/control.h"

int main(int argc, char** argv) {
  cairn::cli::add(cairn::control::daemon_tool());
  cairn::cli::add(cairn::control::ctl_verb());
  return cairn::run_program(argc, argv);
}
