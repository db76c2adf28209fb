// flexible_ioctls.h against linux/kvm.h, by the compiler for which that header is right.
#include "hv/kvm/flexible_ioctls.h"

#include <linux/kvm.h>
#include <stddef.h>

_Static_assert(KVM_GET_SUPPORTED_CPUID == US_KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID");
_Static_assert(KVM_SET_CPUID2 == US_KVM_SET_CPUID2, "KVM_SET_CPUID2");
_Static_assert(KVM_GET_MSRS == US_KVM_GET_MSRS, "KVM_GET_MSRS");
_Static_assert(KVM_SET_MSRS == US_KVM_SET_MSRS, "KVM_SET_MSRS");
_Static_assert(KVM_SET_SIGNAL_MASK == US_KVM_SET_SIGNAL_MASK, "KVM_SET_SIGNAL_MASK");
_Static_assert(KVM_GET_XSAVE == US_KVM_GET_XSAVE, "KVM_GET_XSAVE");
_Static_assert(KVM_SET_XSAVE == US_KVM_SET_XSAVE, "KVM_SET_XSAVE");
_Static_assert(offsetof(struct kvm_cpuid2, entries) == US_KVM_CPUID_HEADER, "kvm_cpuid2");
_Static_assert(offsetof(struct kvm_msrs, entries) == US_KVM_MSRS_HEADER, "kvm_msrs");
_Static_assert(offsetof(struct kvm_signal_mask, sigset) == US_KVM_SIGNAL_MASK_HEADER,
               "kvm_signal_mask");
_Static_assert(sizeof(struct kvm_xsave) == US_KVM_XSAVE_BYTES, "kvm_xsave");
