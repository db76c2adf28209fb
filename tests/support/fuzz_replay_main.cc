// Runs a fuzz target over its committed corpus, so that past findings stay fixed in every build.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {
size_t replay_folder(const std::filesystem::path& folder) {
  size_t inputs = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    ++inputs;
  }
  return inputs;
}
}  // namespace

int main(int argc, char** argv) {
  size_t inputs = 0;
  for (int i = 1; i < argc; ++i) inputs += replay_folder(argv[i]);
  std::printf("%zu corpus inputs replayed\n", inputs);
  if (inputs == 0)
    std::fprintf(stderr, "no corpus input found: a run over nothing proves nothing\n");
  return inputs == 0 ? 1 : 0;
}
