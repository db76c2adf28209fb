#include "hv/cpu/cpu.h"

#include "hv/cpu/access.h"
#include "hv/cpu/code_cache.h"

namespace us::hv {

Cpu::Cpu(GuestMemory& memory_in, Bus& bus_in) : memory(memory_in), bus(bus_in) {
  code = std::make_unique<CodeCache>(*this);
  dtlb = tlb[kBankSupervisor];
  itlb = itlb_bank[1];
}

Cpu::~Cpu() = default;

bool fetch_linear(Cpu& c, uint64_t& linear) {
  if (c.mode.is64()) {
    const auto top = static_cast<int64_t>(c.rip) >> 47;
    linear = c.rip;
    if (top == 0 || top == -1) return true;
  } else {
    linear = static_cast<uint32_t>(c.seg[kCs].base + c.rip);
    if (c.rip <= c.seg[kCs].limit) return true;
  }
  return raise(c, kGeneralProtection, 0);
}

const Xmm* load128_slow(Cpu& c, uint64_t va) {
  return load_slow(c, va, &c.scratch[0], 16) ? &c.scratch[0] : nullptr;
}

bool store128_slow(Cpu& c, uint64_t va, const Xmm& value) { return store_slow(c, va, &value, 16); }

}  // namespace us::hv
