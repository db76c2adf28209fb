// The privileged instructions, by file. Each does one instruction: false if it raised something.
#pragma once

#include "hv/cpu/handler.h"
#include "hv/cpu/system.h"

namespace us::hv {

// system_control.cc
bool read_control(Cpu& c, const Op& op);   // MOV r, CRn
bool write_control(Cpu& c, const Op& op);  // MOV CRn, r
bool read_debug(Cpu& c, const Op& op);
bool write_debug(Cpu& c, const Op& op);
bool load_machine_status(Cpu& c, const Op& op);
bool store_machine_status(Cpu& c, const Op& op);
bool clear_task_switched(Cpu& c, const Op& op);
bool invalidate_page(Cpu& c, const Op& op);
bool flush_caches(Cpu& c, const Op& op);
bool get_xcr(Cpu& c, const Op& op);
bool set_xcr(Cpu& c, const Op& op);

// system_tables.cc
bool store_gdt(Cpu& c, const Op& op);
bool store_idt(Cpu& c, const Op& op);
bool load_gdt(Cpu& c, const Op& op);
bool load_idt(Cpu& c, const Op& op);
bool store_ldt(Cpu& c, const Op& op);
bool store_task(Cpu& c, const Op& op);
bool load_ldt_op(Cpu& c, const Op& op);
bool load_task_op(Cpu& c, const Op& op);
bool load_access_rights(Cpu& c, const Op& op);
bool load_segment_limit(Cpu& c, const Op& op);
bool verify_read(Cpu& c, const Op& op);
bool verify_write(Cpu& c, const Op& op);
bool adjust_rpl(Cpu& c, const Op& op);
bool read_segment(Cpu& c, const Op& op);   // MOV r/m, Sreg
bool write_segment(Cpu& c, const Op& op);  // MOV Sreg, r/m
bool write_stack_segment(Cpu& c, const Op& op);
bool load_far_pointer(Cpu& c, const Op& op);  // LDS, LES, LFS, LGS, LSS

// system_misc.cc
bool halt(Cpu& c, const Op& op);
bool disable_interrupts(Cpu& c, const Op& op);
bool enable_interrupts(Cpu& c, const Op& op);
bool set_ac(Cpu& c, const Op& op);
bool clear_ac(Cpu& c, const Op& op);
bool read_time(Cpu& c, const Op& op);
bool read_time_and_aux(Cpu& c, const Op& op);
bool read_counter(Cpu& c, const Op& op);
bool read_msr_op(Cpu& c, const Op& op);
bool write_msr_op(Cpu& c, const Op& op);
bool cpuid_op(Cpu& c, const Op& op);
bool not_there(Cpu& c, const Op& op);  // #UD

// system_call.cc
bool system_call(Cpu& c, const Op& op);
bool system_return(Cpu& c, const Op& op);
bool system_enter(Cpu& c, const Op& op);
bool system_exit(Cpu& c, const Op& op);
bool swap_gs(Cpu& c, const Op& op);
bool read_fs_base(Cpu& c, const Op& op);
bool read_gs_base(Cpu& c, const Op& op);
bool write_fs_base(Cpu& c, const Op& op);
bool write_gs_base(Cpu& c, const Op& op);
bool interrupt(Cpu& c, const Op& op);  // INT n, INT3
bool overflow_interrupt(Cpu& c, const Op& op);
bool debug_interrupt(Cpu& c, const Op& op);  // INT1

// system_return.cc
bool interrupt_return(Cpu& c, const Op& op);
bool far_return(Cpu& c, const Op& op);

// system_far.cc
bool far_jump(Cpu& c, const Op& op);
bool far_call(Cpu& c, const Op& op);

// system_io.cc
bool port_in(Cpu& c, const Op& op);
bool port_out(Cpu& c, const Op& op);
bool string_in(Cpu& c, const Op& op);
bool string_out(Cpu& c, const Op& op);

}  // namespace us::hv
