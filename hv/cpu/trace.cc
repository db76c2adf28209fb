#include "hv/cpu/trace.h"

namespace us::hv {

void trace_far(Cpu& c) {
  if (c.trace == nullptr) return;
  c.trace->exec_mode(exec_mode(c));
  c.trace->indirect(linear_ip(c, c.rip));
}

void trace_async(Cpu& c, uint64_t from) {
  if (c.trace == nullptr) return;
  c.trace->exec_mode(exec_mode(c));
  c.trace->async(from, linear_ip(c, c.rip));
}

void trace_cr3(Cpu& c) {
  if (c.trace != nullptr) c.trace->cr3(c.cr3);
}

}  // namespace us::hv
