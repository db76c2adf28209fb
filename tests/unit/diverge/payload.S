// A guest whose path depends on everything that can be planted, entered in 64-bit mode at 0x100000 with
// identity paging: memory (a table at 0x340000), the time stamp counter, CPUID, typed bytes, and timer
// interrupts. Each has a branch with a label. Counts rounds in R15, powers off after R14 of them.
#include "tests/support/gates.inc"

        .text
        .code64
        .globl diverge_payload_begin, diverge_payload_end
        .globl table_load, table_branch, tsc_read, tsc_branch, cpuid_read, cpuid_branch, key_branch
        .globl timer_handler
        .balign 16
diverge_payload_begin:
        mov     $0x90000, %esp
        mov     $0x200000, %edi         // IDT
        xor     %eax, %eax
        mov     $0x200, %ecx
        rep stosq
        gate    32, timer_handler
        gate    255, spurious
        movw    $0xfff, 0x201000
        movq    $0x200000, 0x201002
        lidt    0x201000
        mov     $0xfee00000, %ebx       // local APIC: on, timer periodic, vector 32, every 100 microseconds
        movl    $0x1ff, 0xf0(%rbx)
        movl    $0xb, 0x3e0(%rbx)
        movl    $0x20020, 0x320(%rbx)
        movl    $2500, 0x380(%rbx)
        xor     %r15d, %r15d
        xor     %r12d, %r12d
        xor     %r13d, %r13d
        sti
round:
        mov     $37, %ecx
1:      dec     %ecx
        jnz     1b
        movzbl  %r15b, %eax             // memory: any bit set in the round's entry?
table_load:
        mov     0x340000(,%rax,8), %rdx
        test    %rdx, %rdx
table_branch:
        jz      2f                      // both ways are three instructions
        inc     %r12
        jmp     8f
2:      nop
        jmp     8f
8:
tsc_read:
        rdtsc                           // bit 20 of the clock: changes every millisecond
        test    $0x100000, %eax
tsc_branch:
        jz      3f
        add     $3, %r13
3:      test    $63, %r15d
        jnz     4f
        push    %rbx
        mov     $1, %eax
        xor     %ecx, %ecx
cpuid_read:
        cpuid                           // leaf 1: EDX bit 25, SSE
        pop     %rbx
        bt      $25, %edx
cpuid_branch:
        jc      4f
        add     $5, %r13
4:      mov     $0x3fd, %edx            // the serial port: a byte typed?
        in      %dx, %al
        test    $1, %al
        jz      5f
        mov     $0x3f8, %edx
        in      %dx, %al
        cmp     $'x', %al
key_branch:
        jne     5f
        add     $7, %r13
5:      inc     %r15
        cmp     %r14, %r15
        jb      round
        cli
        mov     $0x604, %edx
        mov     $0x3400, %eax           // S5: hv/devices/acpi_pm.h
        out     %ax, %dx
6:      hlt
        jmp     6b
timer_handler:
        push    %rax
        incq    0x320010
        movl    $0, 0xb0(%rbx)          // EOI
        pop     %rax
spurious:
        iretq
        define_set_gate 0x10
diverge_payload_end:
        .section .note.GNU-stack,"",@progbits
