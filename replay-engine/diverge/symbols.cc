#include "replay-engine/diverge/symbols.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <sstream>

namespace us::replay {
namespace {

constexpr size_t kSymbolsMax = 2'000'000;
constexpr uint64_t kReachMax = 1 << 20;

// RAM below the hole as one run of bytes: kernels are loaded there in one piece.
class Image {
 public:
  explicit Image(const hv::GuestMemory& memory)
      : bytes_(memory.host(GuestPhys(0)), memory.low_size()) {}

  bool has(uint64_t at, uint64_t size) const { return at <= size_ && size <= size_ - at; }
  template <class T>
  T get(uint64_t at) const {
    T value{};
    if (has(at, sizeof value)) std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  uint8_t byte(uint64_t at) const { return at < size_ ? bytes_[at] : 0; }
  // Where `what` is from `from` on; the size if nowhere.
  uint64_t find(std::string_view what, uint64_t from) const {
    const void* found = from >= size_
                            ? nullptr
                            : memmem(bytes_.data() + from, size_ - from, what.data(), what.size());
    return found == nullptr
               ? size_
               : static_cast<uint64_t>(static_cast<const uint8_t*>(found) - bytes_.data());
  }
  uint64_t size() const { return size_; }

 private:
  ByteSpan bytes_;
  uint64_t size_ = bytes_.size();
};

uint64_t align8(uint64_t value) { return (value + 7) & ~uint64_t{7}; }

// kallsyms_token_table: 256 strings that names are packed with, kallsyms_token_index after it.
struct Tokens {
  uint64_t table = 0;
  std::vector<std::string> text;
};

// `zero` is where token 48, "0", would be.
std::optional<Tokens> tokens_at(const Image& image, uint64_t zero) {
  constexpr unsigned kBefore = '0';
  constexpr uint64_t kTableMax = 16 * 1024;
  uint64_t start = zero;
  for (unsigned i = 0; i < kBefore; ++i) {
    if (start < 2) return std::nullopt;
    for (--start; start > 0 && image.byte(start - 1) != 0; --start)
      if (zero - start > kTableMax) return std::nullopt;
  }
  Tokens tokens{.table = start};
  std::vector<uint64_t> offsets;
  uint64_t at = start;
  for (unsigned i = 0; i < 256; ++i) {
    offsets.push_back(at - start);
    std::string text;
    for (; image.byte(at) != 0 && text.size() < 64; ++at) text += static_cast<char>(image.byte(at));
    if (image.byte(at++) != 0) return std::nullopt;
    tokens.text.push_back(std::move(text));
  }
  const uint64_t index = align8(at);
  if (start % 8 != 0 || !image.has(index, 512)) return std::nullopt;
  for (unsigned i = 0; i < 256; ++i)
    if (image.get<uint16_t>(index + 2 * uint64_t{i}) != offsets[i]) return std::nullopt;
  return tokens;
}

struct Markers {
  uint64_t at = 0;
  std::vector<uint32_t> values;
};

// The `count` markers that end at `end`, perhaps with padding to 8; ascending from 0.
std::optional<Markers> markers_at(const Image& image, uint64_t end, uint64_t count) {
  for (const uint64_t padding : {0, 4}) {
    const uint64_t size = 4 * count + padding;
    if (end < size || image.get<uint32_t>(end - size) != 0) continue;
    Markers markers{.at = end - size};
    for (uint64_t i = 0; i < count; ++i) {
      const auto value = image.get<uint32_t>(markers.at + 4 * i);
      if (i != 0 && value <= markers.values.back()) break;
      markers.values.push_back(value);
    }
    if (markers.values.size() == count) return markers;
  }
  return std::nullopt;
}

// kallsyms_markers: where every 256th name begins. Between them and the tokens newer kernels have
// three bytes a symbol, kallsyms_seqs_of_names, whose size says how many markers there are.
std::optional<Markers> markers_before_seqs(const Image& image, uint64_t table) {
  constexpr uint64_t kFewest = 1024, kMost = 3 * uint64_t{kSymbolsMax};
  for (uint64_t gap = kFewest; gap < kMost && gap < table; gap += 8) {
    const uint64_t most = (gap / 3 + 255) / 256, least = ((gap - 7) / 3 + 255) / 256;
    for (uint64_t count = least; count <= most; ++count)
      if (count > 3)
        if (auto markers = markers_at(image, table - gap, count)) return markers;
  }
  return std::nullopt;
}

// Older kernels: right before the tokens, back to the 0 they begin with.
std::optional<Markers> markers_before(const Image& image, uint64_t table) {
  uint64_t count = 0;
  uint64_t at = table;
  if (at >= 4 && image.get<uint32_t>(at - 4) == 0) at -= 4;
  for (uint32_t last = ~uint32_t{0}; at >= 4 && last != 0; ++count) {
    at -= 4;
    const auto value = image.get<uint32_t>(at);
    if (value >= last) return std::nullopt;
    last = value;
  }
  return count > 3 ? markers_at(image, table, count) : std::nullopt;
}

// A name's packed length, and past it; 0 where there is none.
uint32_t name_length(const Image& image, uint64_t& at) {
  uint32_t length = image.byte(at++);
  if ((length & 0x80) != 0) length = (length & 0x7f) | uint32_t{image.byte(at++)} << 7;
  return length;
}

bool names_fit(const Image& image, uint64_t names, const std::vector<uint32_t>& markers) {
  uint64_t at = names;
  for (size_t i = 1; i < std::min<size_t>(markers.size(), 4); ++i) {
    for (unsigned n = 0; n < 256; ++n) {
      const uint32_t length = name_length(image, at);
      if (length == 0) return false;
      at += length;
    }
    if (at - names != markers[i]) return false;
  }
  return markers.size() > 1;
}

struct Tables {
  uint64_t names = 0, offsets = 0, base = 0;
  uint32_t count = 0;
};

// kallsyms_num_syms stands 8 bytes before the names, kallsyms_relative_base 8 before that, and the
// offsets before both.
std::optional<Tables> tables_before(const Image& image, const Markers& found) {
  constexpr uint64_t kLastNamesMax = 256 * 128;
  const std::vector<uint32_t>& markers = found.values;
  const uint64_t least = markers.back() + uint64_t{8};
  for (uint64_t back = least; back < least + kLastNamesMax && back <= found.at; ++back) {
    const uint64_t at = found.at - back;
    if (at % 8 != 0) continue;
    const auto count = image.get<uint32_t>(at);
    if (count <= (markers.size() - 1) * 256 || count > markers.size() * 256) continue;
    if (!names_fit(image, at + 8, markers)) continue;
    const uint64_t size = align8(uint64_t{count} * 4);
    if (at < size + 8) return std::nullopt;
    return Tables{.names = at + 8,
                  .offsets = at - 8 - size,
                  .base = image.get<uint64_t>(at - 8),
                  .count = count};
  }
  return std::nullopt;
}

UserError no_symbols(const std::string& path, const std::string& seen) {
  return {.id = "DIV-004",
          .exit_code = ExitCode::kUsage,
          .what = "cannot take symbols from " + path,
          .seen = seen,
          .needed = "the System.map of the guest's kernel: lines of address, type and name",
          .mend = "leave --symbols out: most Linux guests carry their own"};
}

}  // namespace

void Symbols::add(uint64_t address, char type, std::string name) {
  // The guest says what its symbols are called, and reports go to terminals.
  const auto printable = [](unsigned char c) { return c > 0x20 && c < 0x7f; };
  if (!std::all_of(name.begin(), name.end(), printable)) return;
  if (std::strchr("tTwW", type) == nullptr || symbols_.size() >= kSymbolsMax) return;
  symbols_.push_back({address, std::move(name)});
}

void Symbols::sort() {
  std::stable_sort(symbols_.begin(), symbols_.end(),
                   [](const Symbol& a, const Symbol& b) { return a.address < b.address; });
}

Result<Symbols> Symbols::load(const std::string& path) {
  std::ifstream file(path);
  if (!file) return no_symbols(path, std::strerror(errno));
  Symbols symbols;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    uint64_t address = 0;
    char type = 0;
    std::string name;
    if (in >> std::hex >> address >> type >> name) symbols.add(address, type, std::move(name));
  }
  if (symbols.symbols_.empty()) return no_symbols(path, "no line that names code");
  symbols.sort();
  return symbols;
}

std::optional<Symbols> Symbols::from_guest(const hv::GuestMemory& memory) {
  using namespace std::string_view_literals;
  constexpr auto kDigits = "0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0"sv;
  const Image image(memory);
  for (uint64_t at = image.find(kDigits, 0); at < image.size(); at = image.find(kDigits, at + 1)) {
    const auto tokens = tokens_at(image, at);
    if (!tokens) continue;
    auto markers = markers_before(image, tokens->table);
    if (!markers) markers = markers_before_seqs(image, tokens->table);
    if (!markers) continue;
    const auto tables = tables_before(image, *markers);
    if (!tables) continue;
    Symbols symbols;
    uint64_t name_at = tables->names;
    for (uint32_t i = 0; i < tables->count; ++i) {
      std::string name;
      uint32_t length = name_length(image, name_at);
      for (; length != 0 && name.size() < 512; --length)
        name += tokens->text[image.byte(name_at++)];
      name_at += length;
      const auto offset = image.get<int32_t>(tables->offsets + uint64_t{i} * 4);
      // Negative: from the base on; else an absolute value, of no code.
      if (offset < 0 && !name.empty())
        symbols.add(tables->base - 1 - static_cast<uint64_t>(int64_t{offset}), name[0],
                    name.substr(1));
    }
    symbols.sort();
    if (symbols.size() != 0) return symbols;
  }
  return std::nullopt;
}

std::string Symbols::at(uint64_t address) const {
  const auto after = std::upper_bound(symbols_.begin(), symbols_.end(), address,
                                      [](uint64_t a, const Symbol& s) { return a < s.address; });
  if (after == symbols_.begin()) return "";
  const Symbol& symbol = *(after - 1);
  if (address - symbol.address > kReachMax) return "";
  if (address == symbol.address) return symbol.name;
  return fmt::format("{}+{:#x}", symbol.name, address - symbol.address);
}

}  // namespace us::replay
