// Code whose conditional branches are known by construction, for counting on this very processor.
// uint64_t FUNCTION(uint64_t rounds, const uint8_t *stop, void *memory): runs rounds until all are done or
// *stop is not zero; returns the rounds done. Each round has one branch of its own at its begin (taken only when
// stopped) and one at its end (taken but for the last). calib/native_code.cc has the numbers.
        .text
        .macro  begin name
        .globl  \name
        .type   \name, @function
        .balign 64
\name:  push    %rbx
        mov     %rdi, %r8               // rounds
        mov     %rsi, %r9               // stop
        mov     %rdx, %r10              // memory
        xor     %ebx, %ebx              // rounds done
1:      cmpb    $0, (%r9)
        jne     2f
        .endm
        .macro  end name
        inc     %rbx
        cmp     %r8, %rbx
        jne     1b
2:      mov     %rbx, %rax
        pop     %rbx
        ret
        .size   \name, . - \name
        .endm

        begin   us_native_taken
        xor     %eax, %eax
        .rept   200
        jz      3f
        nop
3:
        .endr
        end     us_native_taken

        begin   us_native_not_taken
        xor     %eax, %eax
        .rept   200
        jnz     2f
        .endr
        end     us_native_not_taken

        begin   us_native_mixed
        xor     %eax, %eax
        .rept   50
        jz      3f
        nop
3:      jnz     2f
        .endr
        end     us_native_mixed

        begin   us_native_calls
        xor     %eax, %eax
        .rept   10
        call    4f
        jz      3f
        nop
3:      call    4f
        jnz     2f
        .endr
        jmp     5f
4:      ret
5:
        end     us_native_calls

        begin   us_native_strings
        .rept   4
        mov     %r10, %rdi
        lea     2048(%r10), %rsi
        mov     $256, %ecx
        rep movsb
        xor     %eax, %eax
        jz      3f
        nop
3:      jnz     2f
        .endr
        end     us_native_strings

        // The memory is one cycle of pointers, far longer than any cache.
        begin   us_native_cache_misses
        .rept   4
        mov     (%r10), %r10
        xor     %eax, %eax
        jz      3f
        nop
3:      jnz     2f
        .endr
        end     us_native_cache_misses

        begin   us_native_system_calls
        mov     $110, %eax              // getppid
        syscall                         // takes RCX and R11
        xor     %eax, %eax
        jz      3f
        nop
3:      jnz     2f
        end     us_native_system_calls

        begin   us_native_page_faults
        mov     $28, %eax               // madvise(memory, 4096, MADV_DONTNEED)
        mov     %r10, %rdi
        mov     $4096, %esi
        mov     $4, %edx
        push    %r8
        push    %r9
        push    %r10
        syscall
        pop     %r10
        pop     %r9
        pop     %r8
        movb    $1, (%r10)              // faults
        xor     %eax, %eax
        jz      3f
        nop
3:      jnz     2f
        end     us_native_page_faults

        // A signal handler without a branch of its own: its count is in the data.
        .globl  us_native_tick
        .type   us_native_tick, @function
us_native_tick:
        incq    us_native_ticks(%rip)
        ret
        .size   us_native_tick, . - us_native_tick

        // void us_native_steps(uint64_t n): 8 n instructions with the trap flag set.
        .globl  us_native_steps
        .type   us_native_steps, @function
us_native_steps:
        pushf
        orl     $0x100, (%rsp)
        popf
1:      nop
        nop
        nop
        nop
        nop
        nop
        dec     %rdi
        jnz     1b
        pushf
        andl    $~0x100, (%rsp)
        popf
        ret
        .size   us_native_steps, . - us_native_steps

        // void us_native_breaks(uint64_t n): n breakpoints.
        .globl  us_native_breaks
        .type   us_native_breaks, @function
us_native_breaks:
1:      int3
        dec     %rdi
        jnz     1b
        ret
        .size   us_native_breaks, . - us_native_breaks

        .bss
        .globl  us_native_ticks
        .balign 8
us_native_ticks:
        .zero   8
        .section .note.GNU-stack,"",@progbits
