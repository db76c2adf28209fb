// A guest that takes every kind of branch a trace knows, in every mode, from real mode to a user's
// compatibility mode. Loaded at 0x10000 and entered in real mode at 1000:0000; tables are the test's.
// Faulting instructions are two bytes long: handlers step over them. It ends halted, interrupts off.
#define BASE 0x10000
#define OFF(label) (label - trace_payload)
#define AT(label) (BASE + OFF(label))

        .text
        .balign 16
        .globl trace_payload, trace_payload_end
        .globl trace_fault32, trace_error32, trace_plain32, trace_fault64, trace_error64, trace_plain64
        .globl trace_syscall, trace_sysenter, trace_gdt

        .code16
trace_payload:
        cli
        xorw    %ax, %ax
        movw    %ax, %ss
        movw    $0x8000, %sp
        movw    %ax, %es
        movw    %cs, %ax
        movw    %ax, %ds
        // Vectors 32 and 33.
        movw    $OFF(real_handler), %es:0x80
        movw    %ax, %es:0x82
        movw    $OFF(real_handler), %es:0x84
        movw    %ax, %es:0x86
        movw    $5, %cx
1:      int     $0x21
        loop    1b
        jcxz    2f
        nop
2:      movw    $3, %cx
        cmpw    %ax, %ax
3:      loope   3b
        call    real_leaf
        movw    $OFF(real_leaf), %bx
        call    *%bx
        movw    $OFF(4f), %bx
        jmp     *%bx
        nop
        // The same place by another CS base, and back.
4:      ljmp    $0x0ff0, $(OFF(5f) + 0x100)
5:      lcall   $0x1000, $OFF(real_far)
        ljmp    $0x1000, $OFF(6f)
6:      sti
        movw    $400, %cx
7:      decw    %cx
        jnz     7b
        cli
        lgdtl   OFF(gdt_pointer)
        lidtl   OFF(idt32_pointer)
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $0x08, $AT(protected)
real_handler:
        pushw   %ax
        testb   $1, %al
        jz      1f
        nop
1:      popw    %ax
        iretw
real_leaf:
        ret
real_far:
        lret

        .code32
protected:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x8000, %esp
        sti
        movl    $700, %ecx
1:      testl   $3, %ecx
        jz      2f
        call    leaf32
2:      loop    1b
        int3
        int     $0x21
        movl    $0x7fffffff, %eax
        incl    %eax
        into                            // taken: libipt takes every INTO for a branch
        xorl    %ecx, %ecx
        divl    %ecx
        ud2
        movl    $AT(leaf32), %eax
        call    *%eax
        lcall   $0x08, $AT(far32)
        pushl   $AT(3f)
        ret
        nop
        // 16-bit protected mode, its base not zero.
3:      ljmp    $0x18, $OFF(protected16)
        .code16
protected16:
        movw    $20, %cx
1:      loop    1b
        ljmpl   $0x08, $AT(back32)
        .code32
back32:
        cli
        // Long mode; the tables are at 0x20000.
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    $0x20000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x101, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax
        movl    %eax, %cr0
        jmp     1f
1:      ljmp    $0x20, $AT(long64)
leaf32: ret
far32:  lret
trace_error32:
        addl    $4, %esp
trace_fault32:
        addl    $2, (%esp)
trace_plain32:
        pushl   %eax
        xorl    %eax, %eax
        jz      1f
        nop
1:      popl    %eax
        iretl

        .code64
long64:
        movl    $0x28, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x8000, %esp
        lidt    AT(idt64_pointer)
        movl    $0x50, %eax
        ltr     %ax
        sti
        movl    $900, %ebp
round:  movl    %ebp, %eax
        andl    $7, %eax
        leaq    table(%rip), %rdx
        movslq  (%rdx,%rax,4), %rax
        addq    %rdx, %rax
        jmp     *%rax
case0:  call    leaf64
        jmp     next
case1:  leaq    leaf64(%rip), %rax
        call    *%rax
        jmp     next
case2:  leaq    pointer(%rip), %rdx
        movl    $AT(leaf64), %eax
        movq    %rax, (%rdx)
        call    *pointer(%rip)
        jmp     next
case3:  xorl    %ecx, %ecx
        jrcxz   1f
        nop
1:      movl    $3, %ecx
        cmpl    $9, %ecx
2:      loopne  2b
        movl    $0x30000, %edi
        movl    $0x31000, %esi
        movl    %ebp, %ecx
        rep movsb
        jmp     next
case4:  xorl    %ecx, %ecx
        divl    %ecx
        ud2
        jmp     next
case5:  movl    $1, %edi
        shlq    $40, %rdi
        movb    (%rdi), %al
        jmp     next
        // Code that changes: the branch's condition and the constant it decides on.
case6:  xorb    $1, patched_branch(%rip)
        incb    patched_constant + 1(%rip)
        call    patched
        movq    %cr3, %rax
        movq    %rax, %cr3
        jmp     next
case7:  pushq   $0x77
        call    pop_one
        int     $0x21
        // A value compared with memory, and compare-and-jump pairs of all sizes.
        cmpb    $7, pointer(%rip)
        jb      1f
        cmpq    %rbp, pointer(%rip)
        jge     1f
        testb   $1, %bpl
        jnz     1f
        testq   %rbp, %rbp
        js      1f
        nop
1:
next:   decl    %ebp
        jnz     round
        int3
        // A user's program.
        pushq   $0x3b
        pushq   $0xa000
        pushq   $0x202
        pushq   $0x43
        pushq   $AT(user64)
        iretq
leaf64: ret
pop_one:
        ret     $8
        .balign 64
patched:
patched_constant:
        movb    $0, %al
        cmpb    $64, %al
patched_branch:
        jb      1f
        nop
1:      ret

        .balign 4
table:  .long   case0 - table, case1 - table, case2 - table, case3 - table
        .long   case4 - table, case5 - table, case6 - table, case7 - table
pointer:
        .quad   0

user64: movl    $300, %ebx
1:      movl    $1, %eax
        syscall
        testl   $15, %ebx
        jnz     2f
        int     $0x21
        ud2
2:      decl    %ebx
        jnz     1b
        // Compatibility mode, by a far return.
        pushq   $0x33
        pushq   $AT(user32)
        lretq
        .code32
user32: movl    $0x3b, %eax
        movl    %eax, %ds
        movl    $0xa000, %esp
        movl    $200, %ebx
1:      movl    $AT(2f), %edx
        movl    %esp, %ecx
        sysenter
        nop
2:      call    leaf_compat
        int     $0x21
        testl   $7, %ebx
        jnz     3f
        ud2
3:      decl    %ebx
        jnz     1b
        ljmp    $0x43, $AT(user64_again)
leaf_compat:
        ret
        .code64
user64_again:
        movl    $2, %eax
        syscall
        ud2

trace_syscall:
        cmpl    $2, %eax
        je      1f
        sysretq
1:      cli
        hlt
        jmp     1b
trace_sysenter:
        movl    %edx, %edx
        cmpl    $0, %edx
        je      1f
1:      sti
        sysexitl
trace_error64:
        addq    $8, %rsp
trace_fault64:
        addq    $2, (%rsp)
trace_plain64:
        pushq   %rax
        xorl    %eax, %eax
        jnz     1f
        nop
1:      popq    %rax
        iretq

        .balign 8
trace_gdt:
        .quad   0
        .quad   0x00cf9b000000ffff      // 0x08 code, 32-bit
        .quad   0x00cf93000000ffff      // 0x10 data
        .quad   0x00009b010000ffff      // 0x18 code, 16-bit, base 0x10000
        .quad   0x00af9b000000ffff      // 0x20 code, 64-bit
        .quad   0x00cf93000000ffff      // 0x28 data
        .quad   0x00cffb000000ffff      // 0x30 user's code, 32-bit
        .quad   0x00cff3000000ffff      // 0x38 user's data
        .quad   0x00affb000000ffff      // 0x40 user's code, 64-bit
        .quad   0x00cff3000000ffff      // 0x48 user's data
        .quad   0x0000890040000067      // 0x50 TSS at 0x4000
        .quad   0
gdt_pointer:
        .word   12 * 8 - 1
        .long   AT(trace_gdt)
idt32_pointer:
        .word   256 * 8 - 1
        .long   0x2000
idt64_pointer:
        .word   256 * 16 - 1
        .quad   0x6000
        .balign 16
trace_payload_end:
        .section .note.GNU-stack, "", @progbits
