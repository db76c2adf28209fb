// Guests that are hard to land on, entered in 64-bit mode at 0x100000 with identity paging and the kind's
// number in R12: each runs for ever in what its name says, under a local APIC timer. No kind counts on
// anything but registers to tell its places apart, so that landing without instruction counts can, too.
#include "tests/support/gates.inc"

        .text
        .code64
        .globl landing_payload_begin, landing_payload_end
        .balign 16
landing_payload_begin:
        mov     $0x90000, %esp
        mov     $0x200000, %edi         // IDT
        xor     %eax, %eax
        mov     $0x200, %ecx
        rep stosq
        gate    2, skip
        gate    3, skip
        gate    6, undefined
        gate    14, page_fault
        gate    32, interrupt
        gate    33, interrupt
        gate    65, interrupt
        gate    128, skip
        gate    255, skip
        movw    $0xfff, 0x201000
        movq    $0x200000, 0x201002
        lidt    0x201000
        mov     $0xfee00000, %ebx       // local APIC: on, timer periodic, divide by 1, vector 32
        movl    $0x1ff, 0xf0(%rbx)
        movl    $0xb, 0x3e0(%rbx)
        movl    $0x20020, 0x320(%rbx)
        movl    $2500, 0x380(%rbx)
        xor     %r15d, %r15d
        xor     %r13d, %r13d
        mov     $0x10000000000, %r11    // 1 TiB is mapped nowhere
        sti
again:  inc     %r15
        cmp     $7, %r12d
        jae     every
        mov     %r12d, %eax
        call    one
        jmp     again
every:  mov     $6, %r14d               // all kinds in turn
1:      mov     %r14d, %eax
        call    one
        dec     %r14d
        jns     1b
        jmp     again
one:    lea     kinds(%rip), %rdx
        movslq  (%rdx, %rax, 4), %rax
        add     %rdx, %rax
        jmp     *%rax
        .balign 4
kinds:  .long   loops - kinds, strings - kinds, jumps - kinds, calls - kinds
        .long   interrupts - kinds, halts - kinds, faults - kinds

loops:  mov     $37, %ecx               // conditional branches, taken and not
1:      test    $3, %ecx
        jz      2f
        inc     %r13
2:      dec     %ecx
        jnz     1b
        ret

strings:
        mov     $0x300000, %edi
        mov     $0x310000, %esi
        mov     %r15d, %ecx
        and     $0xff, %ecx             // none now and then
        rep movsb
        mov     $0x300000, %edi
        mov     $9, %ecx
        mov     %r15, %rax
        rep stosq
        mov     $0x310000, %esi
        mov     $17, %ecx
        rep lodsb
        mov     $0x310000, %edi
        mov     $40, %ecx
        repe scasb
        mov     $0x300000, %edi
        mov     $0x300000, %esi
        mov     $33, %ecx
        repe cmpsb
        ret

jumps:  mov     $24, %ecx               // 24 rounds of jumps, not one of them conditional
        lea     1f(%rip), %rdx
        lea     4f(%rip), %rsi
1:      jmp     3f
2:      dec     %ecx
        cmovz   %rsi, %rdx
        jmp     *%rdx
3:      jmp     2b
4:      ret

calls:  mov     $3, %esi
1:      call    leaf
        call    outer
        call    thunk
        dec     %esi
        jnz     1b
        ret
outer:  call    leaf
        call    leaf
        call    thunk
        ret
leaf:   inc     %r13
        ret
thunk:  call    1f                      // as a return trampoline
        ud2
1:      lea     2f(%rip), %rax
        mov     %rax, (%rsp)
        ret
2:      ret

interrupts:                             // two at once, back to back, and one after the other
        movl    $33, 0x300(%rbx)
        movl    $65, 0x300(%rbx)
        inc     %r13
        cli
        movl    $33, 0x300(%rbx)
        movl    $65, 0x300(%rbx)
        inc     %r13
        sti
        inc     %r13
        mov     $5, %ecx
1:      dec     %ecx
        jnz     1b
        ret

halts:  mov     %r15d, %eax
        and     $3, %eax
        jnz     1f
        hlt
1:      mov     $4, %ecx
2:      dec     %ecx
        jnz     2b
        ret

faults: mov     $6, %ecx
1:      mov     (%r11), %rdx            // three bytes
        add     $4096, %r11
        int3
        int     $0x80
        ud2
        dec     %ecx
        jnz     1b
        ret

page_fault:
        add     $8, %rsp                // error code
        addq    $3, (%rsp)
        incq    0x320008
        iretq
undefined:
        addq    $2, (%rsp)
skip:   iretq
interrupt:
        incq    0x320010
        movl    $0, 0xb0(%rbx)          // EOI
        iretq
        define_set_gate 0x10
landing_payload_end:
        .section .note.GNU-stack,"",@progbits
