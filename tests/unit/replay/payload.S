// A guest made to be hard to land on, entered in 64-bit mode at 0x100000 with identity paging: a local
// APIC timer interrupting back to back, tight jump loops, call/return chains, REP strings, page faults and
// HLT. Counts its rounds in R15 and powers off through ACPI (PM1a_CNT at port 0x604) after R14 rounds.
#include "tests/support/gates.inc"

        .text
        .code64
        .globl payload_begin, payload_end
        .balign 16
payload_begin:
        mov     $0x90000, %esp
        // IDT at 0x200000: vector 14 page fault, 32 timer, 255 spurious.
        mov     $0x200000, %edi
        xor     %eax, %eax
        mov     $0x200, %ecx
        rep stosq
        gate    14, page_fault
        gate    32, timer
        gate    255, spurious
        movw    $0xfff, 0x201000
        movq    $0x200000, 0x201002
        lidt    0x201000
        // Local APIC: on, timer periodic, vector 32, divide by 1, every 100 microseconds.
        mov     $0xfee00000, %ebx
        movl    $0x1ff, 0xf0(%rbx)
        movl    $0xb, 0x3e0(%rbx)
        movl    $0x20020, 0x320(%rbx)
        movl    $2500, 0x380(%rbx)
        xor     %r15d, %r15d
        sti
round:
        // Tight conditional loop.
        mov     $37, %ecx
1:      dec     %ecx
        jnz     1b
        // A chain of straight jumps and calls at one branch count.
        mov     $3, %esi
2:      call    leaf
        call    leaf
        jmp     3f
4:      jmp     5f
3:      jmp     4b
5:      dec     %esi
        jnz     2b
        // REP strings of changing length.
        mov     $0x300000, %edi
        mov     $0x310000, %esi
        mov     %r15d, %ecx
        and     $0xff, %ecx
        rep movsb
        mov     $0x300000, %edi
        mov     $64, %ecx
        mov     %r15, %rax
        rep stosq
        // A page fault now and then (1 TiB is mapped nowhere).
        test    $7, %r15d
        jnz     6f
        mov     $0x10000000000, %rax
        mov     (%rax), %rdx
6:      // Sleep until the timer, sometimes.
        mov     %r15d, %eax
        and     $0x1ff, %eax
        jnz     7f
        hlt
7:      rdtsc
        add     %eax, 0x320000
        loop    8f
8:      inc     %r15
        cmp     %r14, %r15
        jb      round
        cli
        mov     $0x604, %edx
        mov     $0x3400, %eax           // SLP_EN, SLP_TYP of S5: hv/devices/acpi_pm.h
        out     %ax, %dx
9:      hlt
        jmp     9b
leaf:   inc     %r13
        ret
page_fault:
        add     $8, %rsp                // error code
        addq    $3, (%rsp)              // past the three-byte load
        incq    0x320008
        iretq
timer:  push    %rax
        incq    0x320010
        movl    $0, 0xb0(%rbx)          // EOI
        pop     %rax
        iretq
spurious:
        iretq
        define_set_gate 0x10
payload_end:
        .section .note.GNU-stack,"",@progbits
