// What the patched kvm modules (hv/kvm/patches/) offer beyond a stock kernel, seen from userspace.
// Every US_KVM_x here is KVM_x in the patches, with the same number; a lint test compares the two.
// C and C++: the ioctls with flexible arrays live in a C file. Needs no patched <linux/kvm.h>.
//
// The numbers lie in a range of our own ("us" in ASCII, then an ordinal), far from what upstream
// hands out one by one, so that a later kernel cannot mean something else by them.
#pragma once

#include <stdint.h>

// --- Capabilities -----------------------------------------------------------------------------
// Ask with KVM_CHECK_EXTENSION on the VM's descriptor; 0 on a stock kernel, on a CPU that cannot,
// and for TSC_EXIT the valid bits of args[0]. Turn on with KVM_ENABLE_CAP on the VM's descriptor,
// flags = 0, before the first vCPU is made; it cannot be turned off again. EINVAL: unknown bits,
// flags set, a vCPU is there already, or the host cannot do it (KVM_CHECK_EXTENSION said 0).

// RDTSC and RDTSCP leave with US_KVM_EXIT_X86_TSC. args[0] = US_KVM_TSC_EXIT_RDTSC. VMX and SVM.
#define US_KVM_CAP_X86_TSC_EXIT 0x75730001
// US_KVM_GUESTDBG_MTF becomes a valid bit of KVM_SET_GUEST_DEBUG. args[0] = 0. VMX with
// unrestricted guest only.
#define US_KVM_CAP_X86_MTF_STEP 0x75730002
// Page faults that the guest's page tables do not justify never reach the guest. args[0] = 0.
// VMX with EPT only. No exit of its own.
#define US_KVM_CAP_X86_HIDE_SPURIOUS_PF 0x75730003
// An intel_pt perf event opened with exclude_kernel and exclude_user both 1 and active on the
// vCPU's CPU traces the guest, at all privilege levels, and no branch of the host. args[0] = 0.
// VMX with kvm_intel.pt_mode=0 and PT usable in VMX operation only. Such an event traces nothing
// at all on a stock kernel: ask before relying on it. Packets: at VM entry TIP.PGE, at VM exit FUP,
// TIP.PGD without IP; guest CR3 loads as PIP with NR = 1. aux_sample_size must be 0.
#define US_KVM_CAP_X86_PT_GUEST_ONLY 0x75730004

// args[0] of US_KVM_CAP_X86_TSC_EXIT: the one bit so far, RDTSC and RDTSCP together.
#define US_KVM_TSC_EXIT_RDTSC 0x1

// --- TSC exits --------------------------------------------------------------------------------
// kvm_run::exit_reason. The instruction has not been done: put the value into
// us_kvm_run_tsc::value and enter KVM_RUN again, which writes EDX:EAX (for RDTSCP also ECX, from
// the guest's IA32_TSC_AUX) and moves RIP on. As for port I/O, enter with immediate_exit = 1 to
// have that done before registers are read or changed; with guest debugging by MTF or TF on, that
// entry returns KVM_EXIT_DEBUG (the step is over) instead of EINTR. RDTSC where the guest may not
// (CR4.TSD outside CPL 0) faults in the guest and does not exit. RDMSR of IA32_TIME_STAMP_COUNTER
// is not covered: use the MSR filter. UMWAIT and TPAUSE are invalid opcodes in such a VM.
#define US_KVM_EXIT_X86_TSC 0x75730001

#define US_KVM_TSC_INSN_RDTSC 0
#define US_KVM_TSC_INSN_RDTSCP 1

// At the union of kvm_run (offset US_KVM_RUN_UNION_OFFSET).
struct us_kvm_run_tsc {
  uint64_t value;        // userspace to kernel; 0 when the exit is made
  uint32_t instruction;  // kernel to userspace: US_KVM_TSC_INSN_*
  uint32_t padding;
};

#define US_KVM_RUN_UNION_OFFSET 32

// --- Stepping by monitor trap flag ------------------------------------------------------------
// A bit of kvm_guest_debug::control, valid only after US_KVM_CAP_X86_MTF_STEP: without it KVM
// ignores the bit, like all that it does not know, and the guest runs free. EINVAL together with
// KVM_GUESTDBG_SINGLESTEP. May be combined with KVM_GUESTDBG_USE_HW_BP and _BLOCKIRQ. Stays
// on, KVM_GUESTDBG_ENABLE beside it, until the next KVM_SET_GUEST_DEBUG; nothing in RFLAGS or the
// interrupt shadow changes, and moving RIP needs no new KVM_SET_GUEST_DEBUG. Not stepped: a nested
// guest.
//
// One KVM_RUN then ends, with KVM_EXIT_DEBUG and debug.arch.exception ==
// US_KVM_DEBUG_EXCEPTION_MTF and debug.arch.pc == the linear RIP, after exactly one of:
//   - one instruction, or one iteration of a repeated string instruction (a batch of them where
//     KVM emulates, that is for INS/OUTS and MMIO: how many depends on guest state only, and a step
//     of its own with RCX = 0 may follow the last);
//   - delivery of an event that was injected before the entry (KVM_INTERRUPT, KVM_NMI, or one
//     left over in KVM_GET_VCPU_EVENTS): RIP is at the handler, none of it has run;
//   - delivery of the fault the instruction raised: RIP is at the handler.
// Other exits come first where the instruction needs them (I/O, MMIO, MSR, TSC): complete them
// with KVM_RUN, and that same KVM_RUN ends the step. KVM_EXIT_HLT and KVM_EXIT_SET_TPR (a CR8
// write with a userspace APIC) take the place of KVM_EXIT_DEBUG: the instruction is done and they
// end the step themselves. KVM_EXIT_SHUTDOWN likewise. KVM_EXIT_IRQ_WINDOW_OPEN and EINTR come
// before the instruction and end nothing: enter again. A #DB that the guest's own RFLAGS.TF causes
// is delivered by the next step; between the two it is not part of KVM_GET_VCPU_EVENTS, so take no
// snapshot of such a guest there. Disable KVM_X86_QUIRK_OUT_7E_INC_RIP (KVM_CAP_DISABLE_QUIRKS2):
// with it, OUT to port 0x7e loses its KVM_EXIT_IO under any kind of stepping.
#define US_KVM_GUESTDBG_MTF 0x40000000
// kvm_run::debug.arch.exception of such an exit; dr6 has BS set, dr7 is 0. All other debug exits
// have the vector there (1 or 3).
#define US_KVM_DEBUG_EXCEPTION_MTF 0x75730001

// --- Spurious page faults -----------------------------------------------------------------------
// No number of its own. Should the CPU insist on a fault that the tables do not justify, with the
// same registers and without any other exit for 1000 attempts, the guest gets it: the CPU does so
// in every run. Beside the fault itself: the accessed (and for a write the dirty) bits of the
// walked entries are set, as the access that follows would do. An access that was retried, after a
// hidden fault or an EPT violation (stock), runs with RFLAGS.RF = 1: clear RF before injecting an
// event at a boundary where the run was stopped, or the frame that the guest sees will hold it;
// alike when recording and when replaying, as a guest can have set RF itself.
