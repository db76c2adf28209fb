# A Multiboot kernel that adds for a while, with a timer's interrupts among it, says "sum" and what came of it,
# and ends by the debug exit.
        .section .text
        .code32
        .align 4
        .long 0x1badb002, 0, -0x1badb002
        .globl _start
_start: mov     $0x400000, %esp
        lgdt    gdt_pointer
        ljmp    $8, $1f
1:      mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $tick, %eax
        mov     %ax, idt + 8 * 32
        shr     $16, %eax
        mov     %ax, idt + 8 * 32 + 6
        lidt    idt_pointer
        # Local APIC: on, timer periodic, vector 32, divide by 1.
        mov     $0xfee00000, %ebx
        movl    $0x1ff, 0xf0(%ebx)
        movl    $0xb, 0x3e0(%ebx)
        movl    $0x20020, 0x320(%ebx)
        movl    $1000000, 0x380(%ebx)
        xor     %edx, %edx
        mov     $20000, %ecx
        sti
add:    add     %ecx, %edx
        rol     $3, %edx
        test    $0x55, %edx
        jz      2f
        xor     $0x5a5a, %edx
2:      loop    add
        cli
        and     $0xffffff, %edx
        mov     %edx, %ebp
        mov     $text, %esi
        mov     $4, %ecx
        mov     $0x3f8, %edx
        rep outsb
        mov     $8, %ecx
digit:  rol     $4, %ebp
        mov     %ebp, %eax
        and     $15, %eax
        add     $'0', %al
        cmp     $'9', %al
        jbe     3f
        add     $7, %al
3:      out     %al, %dx
        loop    digit
        mov     $'\n', %al
        out     %al, %dx
        mov     $0xf4, %edx
        mov     $0, %eax
        out     %eax, %dx
stop:   hlt
        jmp     stop
tick:   push    %eax
        incl    ticks
        movl    $0, 0xfee000b0                  # EOI
        pop     %eax
        iret
text:   .ascii  "sum "
        .align 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer: .word 23
        .long   gdt
idt:    .fill   32, 8, 0
        .word   0, 8, 0x8e00, 0
idt_pointer: .word 33 * 8 - 1
        .long   idt
ticks:  .long   0
