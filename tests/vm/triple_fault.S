# A Multiboot kernel that does one thing: an exception with no descriptor tables to take it.
# Multiboot 0.6.96, 3.1.1: magic, flags, checksum; the ELF header says where to load.
        .section .text
        .code32
        .align 4
        .long 0x1badb002, 0, -0x1badb002
        .globl _start
_start: lidt nothing
        mov $0x1234abcd, %esi
        int3
        .align 4
nothing:
        .word 0
        .long 0
