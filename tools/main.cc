// The one binary.
#include "tools/verbs.h"

int main(int argc, char** argv) { return us::tools::command_line(argc, argv); }
