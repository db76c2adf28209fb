/* The ioctls of KVM whose arguments end in a flexible array. linux/kvm.h declares those through an
 * empty structure, which has a size in C++: sizeof(struct kvm_cpuid2) is 12 there and 8 in C, and
 * the ioctl's number, made from it, is one no kernel knows (EINVAL). So the numbers stand here, and
 * flexible_ioctls.c holds them against the header in C. Also read by C. */
#ifndef US_HV_KVM_FLEXIBLE_IOCTLS_H
#define US_HV_KVM_FLEXIBLE_IOCTLS_H

#define US_KVM_GET_SUPPORTED_CPUID 0xc008ae05UL
#define US_KVM_SET_CPUID2 0x4008ae90UL
#define US_KVM_GET_MSRS 0xc008ae88UL
#define US_KVM_SET_MSRS 0x4008ae89UL
#define US_KVM_SET_SIGNAL_MASK 0x4004ae8bUL
#define US_KVM_GET_XSAVE 0x9000aea4UL
#define US_KVM_SET_XSAVE 0x5000aea5UL

/* Bytes before the first element. */
#define US_KVM_CPUID_HEADER 8
#define US_KVM_MSRS_HEADER 8
#define US_KVM_SIGNAL_MASK_HEADER 4
#define US_KVM_XSAVE_BYTES 4096

#endif
