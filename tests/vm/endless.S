# A Multiboot kernel that says "up" on the serial port and then runs for ever.
        .section .text
        .code32
        .align 4
        .long 0x1badb002, 0, -0x1badb002
        .globl _start
_start: mov $0x3f8, %dx
        mov $'u', %al
        out %al, %dx
        mov $'p', %al
        out %al, %dx
        mov $'\n', %al
        out %al, %dx
again:  cmp %eax, %ebx
        je again
        jmp again
