// pt_soak flow RECORDING TRACE [BRANCHES] | pt_soak variation TRACE [BYTES [SEEDS]]
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/property/pt/soak.h"

namespace {

uint64_t number(int argc, char** argv, int at, uint64_t otherwise) {
  return argc > at ? std::strtoull(argv[at], nullptr, 0) : otherwise;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 4 && std::strcmp(argv[1], "flow") == 0)
    return us::test::soak_flow(argv[2], argv[3], number(argc, argv, 4, ~uint64_t{0}));
  if (argc >= 3 && std::strcmp(argv[1], "variation") == 0)
    return us::test::soak_variation(argv[2], number(argc, argv, 3, 2 << 20),
                                    number(argc, argv, 4, 1000));
  std::fprintf(
      stderr, "pt_soak flow RECORDING TRACE [BRANCHES]\npt_soak variation TRACE [BYTES [SEEDS]]\n");
  return 2;
}
