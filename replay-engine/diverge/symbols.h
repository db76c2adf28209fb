// Names for code addresses: from a System.map, or from the tables that a Linux guest carries in its
// own memory (kernel/kallsyms.c).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "hv/core/memory.h"

namespace us::replay {

class Symbols {
 public:
  // Lines of "ADDRESS TYPE NAME", code only. Errors: DIV-004 it cannot be read or holds none.
  static Result<Symbols> load(const std::string& path);
  // The layout of Linux 4.20 to 6.3 with relative offsets, found by its table of tokens; nothing
  // for other kernels. Every table is checked against the others before it is believed.
  static std::optional<Symbols> from_guest(const hv::GuestMemory& memory);

  // "name+0x1c"; empty outside every function, or more than 1 MiB behind one.
  std::string at(uint64_t address) const;
  size_t size() const { return symbols_.size(); }

 private:
  struct Symbol {
    uint64_t address;
    std::string name;
  };
  void add(uint64_t address, char type, std::string name);
  void sort();

  std::vector<Symbol> symbols_;
};

}  // namespace us::replay
