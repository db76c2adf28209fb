// The guest that landings are timed in, entered in 64-bit mode with identity paging: loops with branches
// taken and not, calls, and string instructions, for ever. Its state never repeats (R15), so every place has
// its point.
        .text
        .code64
        .globl landing_guest_begin, landing_guest_end
        .balign 16
landing_guest_begin:
        mov     $0x90000, %esp
again:  inc     %r15
        mov     $29, %ecx
1:      test    $3, %ecx
        jz      2f
        inc     %r13
2:      dec     %ecx
        jnz     1b
        mov     $0x300000, %edi
        mov     $0x310000, %esi
        mov     $40, %ecx
        rep movsb
        mov     $11, %ecx
3:      call    leaf
        test    $1, %ecx
        jz      4f
        call    leaf
4:      dec     %ecx
        jnz     3b
        jmp     again
leaf:   inc     %r14
        ret
landing_guest_end:
        .section .note.GNU-stack,"",@progbits
