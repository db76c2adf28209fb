#include "hv/cpu/trace.h"

namespace us::hv {

void trace_conditional(Cpu&, bool) {}
void trace_indirect(Cpu&, uint64_t) {}
void trace_far(Cpu&, uint64_t) {}
void trace_async(Cpu&, uint64_t, uint64_t) {}

}  // namespace us::hv
