// What the guest asks of us: ports, device memory, MSRs, time; and the exits that end a run.
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "hv/cpu/system.h"
#include "hv/kvm/kvm_vcpu.h"
#include "hv/kvm/patch_abi.h"

namespace us::hv::kvm {
namespace {

constexpr uint32_t kApicBase = 0x1b;
constexpr size_t kIoBytesMax = kPageSize;

us_kvm_run_tsc& tsc_of(kvm_run& page) {
  static_assert(offsetof(kvm_run, hw) == US_KVM_RUN_UNION_OFFSET);
  return *reinterpret_cast<us_kvm_run_tsc*>(reinterpret_cast<uint8_t*>(&page) +
                                            US_KVM_RUN_UNION_OFFSET);
}

UserError broken(std::string id, std::string what, std::string seen) {
  return {.id = std::move(id),
          .exit_code = ExitCode::kHostCannot,
          .what = std::move(what),
          .seen = std::move(seen),
          .needed = "a host whose KVM runs this guest",
          .mend =
              "use the software processor (`--backend soft`); `understudy hostcheck` says what "
              "this host lacks"};
}

}  // namespace

bool KvmVcpu::serve() {
  switch (vm_->page().exit_reason) {
    case KVM_EXIT_IO: serve_port(); break;
    case KVM_EXIT_MMIO: serve_memory(); break;
    case KVM_EXIT_X86_RDMSR: serve_msr(false); break;
    case KVM_EXIT_X86_WRMSR: serve_msr(true); break;
    case US_KVM_EXIT_X86_TSC: serve_time(); break;
    default: return false;
  }
  ++statistics_.accesses;
  access_pending_ = true;
  return true;
}

// Of a string instruction there may be many elements in one exit.
void KvmVcpu::serve_port() {
  kvm_run& page = vm_->page();
  const auto& io = page.io;
  US_CHECK((io.size == 1 || io.size == 2 || io.size == 4) && io.size * io.count <= kIoBytesMax,
           "{} accesses of {} bytes at a port", io.count, io.size);
  uint8_t* data = reinterpret_cast<uint8_t*>(&page) + io.data_offset;
  for (uint32_t i = 0; i < io.count; ++i, data += io.size) {
    uint32_t value = 0;
    if (io.direction == KVM_EXIT_IO_IN) {
      value = bus_.pio_read(io.port, io.size);
      std::memcpy(data, &value, io.size);
    } else {
      std::memcpy(&value, data, io.size);
      bus_.pio_write(io.port, io.size, value);
    }
  }
}

// The bus takes sizes of a power of two; KVM cuts at eight bytes and at pages only.
void KvmVcpu::serve_memory() {
  auto& mmio = vm_->page().mmio;
  US_CHECK(mmio.len <= sizeof mmio.data, "an access of {} bytes", mmio.len);
  for (uint32_t done = 0; done < mmio.len;) {
    const uint32_t left = mmio.len - done;
    const uint32_t piece = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    const GuestPhys address(mmio.phys_addr + done);
    uint64_t value = 0;
    if (mmio.is_write != 0) {
      std::memcpy(&value, mmio.data + done, piece);
      bus_.mmio_write(address, piece, value);
    } else {
      value = bus_.mmio_read(address, piece);
      std::memcpy(mmio.data + done, &value, piece);
    }
    done += piece;
  }
}

// As the software processor would, on the registers that it keeps here; those that the real one
// keeps never come.
void KvmVcpu::serve_msr(bool write) {
  auto& msr = vm_->page().msr;
  shadow_.branches = branches().value;
  uint64_t value = msr.data;
  const bool done =
      write ? write_msr(shadow_, msr.index, value) : read_msr(shadow_, msr.index, value);
  msr.error = done ? 0 : 1;
  if (!done) return;
  msr.data = value;
  if (write && msr.index == kApicBase) apic_base_stale_ = true;
}

void KvmVcpu::serve_time() { tsc_of(vm_->page()).value = bus_.tsc(branches()).value; }

// Exits that are no access: afterwards the reason to stop is in our own state.
void KvmVcpu::report_exit() {
  switch (vm_->page().exit_reason) {
    case KVM_EXIT_HLT: halted_ = true; break;
    case KVM_EXIT_SHUTDOWN: shutdown_ = true; break;
    case KVM_EXIT_DEBUG:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_INTR: break;
    default: fail(internal_error());
  }
}

UserError KvmVcpu::internal_error() const {
  const kvm_run& page = vm_->page();
  switch (page.exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR: {
      std::string bytes;
      const auto& failure = page.emulation_failure;
      if (page.internal.suberror == KVM_INTERNAL_ERROR_EMULATION && failure.ndata >= 3 &&
          (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0)
        for (unsigned i = 0; i < failure.insn_size && i < sizeof failure.insn_bytes; ++i)
          bytes += fmt::format(" {:02x}", failure.insn_bytes[i]);
      return broken("KVM-005", "KVM cannot execute what the guest asks for",
                    fmt::format("internal error {}{}{}", page.internal.suberror,
                                bytes.empty() ? "" : ", instruction", bytes));
    }
    case KVM_EXIT_FAIL_ENTRY:
      return broken("KVM-006", "the processor refuses to enter the guest",
                    fmt::format("reason {:#x}", page.fail_entry.hardware_entry_failure_reason));
    default:
      return broken("KVM-007", "KVM ended a run in a way this backend does not know",
                    fmt::format("exit reason {}", page.exit_reason));
  }
}

}  // namespace us::hv::kvm
