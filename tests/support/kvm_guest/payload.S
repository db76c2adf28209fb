// A guest for two processors to agree on, entered in 64-bit mode at 0x100000 with the first four GiB mapped
// one to one. Every round: ring 3 and back by SYSCALL, SYSRET, INT and IRET; faults inside handlers; flags
// stored and loaded; interrupt shadows; ports, device memory, MSRs, CPUID, time; strings; x87 and SSE. Sums
// what it sees in R15, counts rounds in R13, and powers off after R14 rounds.
#include "tests/support/gates.inc"

        .text
        .code64
        .globl kvm_payload_begin, kvm_payload_end
        .balign 16
kvm_payload_begin:
        mov     $0x90000, %esp
        mov     $0x200000, %edi                 // IDT, TSS and a GDT of our own
        xor     %eax, %eax
        mov     $0x400, %ecx
        rep stosq
        gate    0, on_divide
        gate    3, on_breakpoint
        orb     $0x60, 0x200000 + 3 * 16 + 5    // DPL 3
        gate    6, on_undefined
        gate    13, on_protection
        gate    14, on_page_fault
        gate    32, on_timer
        gate    48, on_call
        orb     $0x60, 0x200000 + 48 * 16 + 5
        movw    $0xfff, 0x203000
        movq    $0x200000, 0x203002
        lidt    0x203000
        // GDT: 0x08 code, 0x10 data, 0x18 user 32-bit code, 0x20 user data, 0x28 user code, 0x30 TSS.
        mov     $0x202000, %ebx
        movq    $0, (%rbx)
        mov     $0x00af9b000000ffff, %rax
        mov     %rax, 8(%rbx)
        mov     $0x00cf93000000ffff, %rax
        mov     %rax, 16(%rbx)
        mov     $0x00cffb000000ffff, %rax
        mov     %rax, 24(%rbx)
        mov     $0x00cff3000000ffff, %rax
        mov     %rax, 32(%rbx)
        mov     $0x00affb000000ffff, %rax
        mov     %rax, 40(%rbx)
        mov     $0x0000892040000067, %rax       // base 0x204000
        mov     %rax, 48(%rbx)
        movq    $0, 56(%rbx)
        movw    $63, 0x203010
        mov     %rbx, 0x203012
        lgdt    0x203010
        push    $8
        lea     1f(%rip), %rax
        push    %rax
        lretq
1:      mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        movq    $0x88000, 0x204004              // RSP0
        mov     $0x30, %eax
        ltr     %ax
        // Every page is the user's as well.
        mov     %cr3, %rdi
        mov     $6 * 512, %ecx
2:      testb   $1, (%rdi)
        jz      3f
        orb     $4, (%rdi)
3:      add     $8, %rdi
        loop    2b
        mov     %cr3, %rax
        mov     %rax, %cr3
        // SYSCALL.
        mov     $0xc0000080, %ecx
        rdmsr
        or      $1, %eax
        wrmsr
        mov     $0xc0000081, %ecx
        mov     $0x00180008, %edx
        xor     %eax, %eax
        wrmsr
        mov     $0xc0000082, %ecx
        lea     on_syscall(%rip), %rax
        xor     %edx, %edx
        wrmsr
        mov     $0xc0000084, %ecx
        mov     $0x300, %eax                    // TF and IF
        xor     %edx, %edx
        wrmsr
        // SSE.
        mov     %cr4, %rax
        or      $0x600, %rax
        mov     %rax, %cr4
        mov     %cr0, %rax
        and     $~4, %rax
        or      $2, %rax
        mov     %rax, %cr0
        // Local APIC: on, timer periodic, vector 32, divide by 1.
        mov     $0xfee00000, %ebx
        movl    $0x1ff, 0xf0(%rbx)
        movl    $0xb, 0x3e0(%rbx)
        movl    $0x20020, 0x320(%rbx)
        movl    $2500, 0x380(%rbx)
        xor     %r15d, %r15d
        xor     %r13d, %r13d
        sti
round:
        // Shadows of STI and of MOV SS, and flags in memory.
        cli
        pushf
        pop     %rax
        add     %rax, %r15
        sti
        mov     $0x10, %eax
        mov     %eax, %ss
        jmp     1f
1:      pushf
        orl     $0x400, (%rsp)
        popf
        pushf
        popq    %rax
        cld
        add     %rax, %r15
        // Ports: the PIT's counter, the RTC's index; a string out of memory.
        mov     $0xe, %eax
        out     %al, $0x70
        in      $0x71, %al
        movzbl  %al, %eax
        add     %rax, %r15
        mov     $0x300000, %esi
        movl    $0x44434241, (%rsi)
        mov     $3, %ecx
        mov     $0x3f8, %edx
        rep outsb
        // Device memory: read and write of the APIC's task priority.
        movl    $0x10, 0x80(%rbx)
        mov     0x80(%rbx), %eax
        add     %rax, %r15
        movl    $0, 0x80(%rbx)
        mov     %cr8, %rax
        add     %rax, %r15
        mov     $2, %eax
        mov     %rax, %cr8
        mov     0x80(%rbx), %ecx
        add     %rcx, %r15
        xor     %eax, %eax
        mov     %rax, %cr8
        // MSRs, CPUID, time.
        push    %rbx
        mov     $0x1b, %ecx
        rdmsr
        add     %rax, %r15
        mov     $0x277, %ecx
        rdmsr
        wrmsr
        add     %rax, %r15
        mov     $0x6e1, %ecx                    // none such
        rdmsr
        mov     $1, %eax
        cpuid
        add     %rcx, %r15
        add     %rdx, %r15
        mov     $0x40000000, %eax
        cpuid
        add     %rbx, %r15
        rdtsc
        add     %rax, %r15
        rdtscp
        add     %rcx, %r15
        pop     %rbx
        // Faults of every kind, one of them in a handler.
        xor     %edx, %edx
        xor     %ecx, %ecx
        mov     $7, %eax
        div     %ecx
        ud2
        int3
        mov     $0x10000000000, %rax
        mov     (%rax), %rdx
        mov     %rdx, (%rax)
        // Strings that fault in the middle, and go on.
        mov     $0x310000, %edi
        mov     $0x320000, %esi
        mov     $700, %ecx
        rep movsb
        mov     $0x330000, %edi
        mov     %r15, %rax
        mov     $100, %ecx
        rep stosq
        mov     $0x330000, %esi
        mov     $0x310000, %edi
        mov     $50, %ecx
        repe cmpsb
        add     %rcx, %r15
        // x87 and SSE.
        mov     %r13, 0x340000
        fninit
        fildq   0x340000
        fld1
        faddp
        fistpq  0x340008
        add     0x340008, %r15
        cvtsi2sd %r13, %xmm3
        addsd   %xmm3, %xmm3
        cvtsd2si %xmm3, %rax
        add     %rax, %r15
        // Ring 3 and back.
        mov     $0x23, %eax
        push    %rax
        push    $0x87000
        pushf
        push    $0x2b
        lea     user(%rip), %rax
        push    %rax
        iretq
back:   mov     $0x10, %eax
        mov     %eax, %ss
        mov     $0x90000, %esp
        sti
        // Sleep now and then.
        mov     %r13d, %eax
        and     $7, %eax
        jnz     4f
        hlt
4:      inc     %r13
        cmp     %r14, %r13
        jb      round
        cli
        mov     $0x604, %edx
        mov     $0x3400, %eax                   // SLP_EN, SLP_TYP of S5: hv/devices/acpi_pm.h
        out     %ax, %dx
5:      hlt
        jmp     5b
user:   mov     $5, %ecx
6:      add     %rcx, %r15
        loop    6b
        pushf
        pop     %rax
        add     %rax, %r15
        cli                                     // #GP
        mov     $1, %edx
        syscall
        int     $48
on_syscall:                                     // RCX, R11
        add     %r11, %r15
        swapgs
        swapgs
        sysretq
on_call:                                        // does not return: the frame is left behind
        jmp     back
on_divide:
        addq    $2, (%rsp)                      // past DIV ECX
        inc     %r15
        iretq
on_undefined:
        addq    $2, (%rsp)
        add     16(%rsp), %r15                  // its flags
        iretq
on_breakpoint:
        add     16(%rsp), %r15
        push    %rax
        push    %rdx
        xor     %eax, %eax
        mov     $0x10000000000, %rdx            // a fault in a handler
        mov     (%rdx), %rax
        pop     %rdx
        pop     %rax
        iretq
on_protection:                                  // CLI is one byte, RDMSR two
        add     (%rsp), %r15
        push    %rax
        mov     16(%rsp), %rax
        cmpb    $0xfa, (%rax)
        je      7f
        incq    16(%rsp)
7:      incq    16(%rsp)
        pop     %rax
        add     $8, %rsp
        iretq
on_page_fault:
        add     (%rsp), %r15
        add     24(%rsp), %r15                  // its flags
        add     $8, %rsp
        addq    $3, (%rsp)                      // past a three-byte access
        incq    0x340010
        iretq
on_timer:
        push    %rax
        incq    0x340018
        mov     16(%rsp), %rax
        add     24(%rsp), %rax                  // where it was, and its flags
        add     %rax, 0x340020
        mov     $0xfee00000, %eax
        movl    $0, 0xb0(%rax)                  // EOI
        pop     %rax
        iretq
        define_set_gate 8
kvm_payload_end:
        .section .note.GNU-stack,"",@progbits
