#include "cli/cli.h"

int main(int argc, char** argv) { return cairn::run_program(argc, argv); }
