#!/usr/bin/env bash
# The KVM backend on a real kernel's kvm_intel, where the host has none: Debian's kernel runs in Bochs, whose
# processor model has VMX (with EPT, unrestricted guests, breakpoints, the trap flag; no MTF, no PMU), and in it
# `understudy hostcheck`, a recording by steps and its replay, and kvm_guest_on_this_host.
#   tests/long/kvm_in_bochs.sh [MODULES]
# MODULES: a folder with kvm.ko and kvm-intel.ko to use instead of Debian's own (hv/kvm/patches/build-modules.sh makes
# patched ones). Needs bochs, bochsbios, vgabios, grub-pc-bin, grub-common, xorriso, mtools, cpio, gcc and ./dev guest; takes
# a few minutes. Exit 0: recorded and replayed.
set -euo pipefail
export LC_ALL=C
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${UNDERSTUDY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy}/unpacked
model=${BOCHS_CPU:-broadwell_ult} limit=${BOCHS_SECONDS:-1800}

for program in bochs grub-mkrescue xorriso cpio gcc; do
  command -v "$program" >/dev/null || { echo "SKIPPED: no $program"; exit 77; }
done
kernel=$(find "$cache" -path '*/kernel/arch/x86/kvm/kvm-intel.ko' | sort -V | tail -n 1)
busybox=$(find "$cache" -path '*busybox-static*/bin/busybox' -type f | sort -V | tail -n 1)
[[ -n $kernel && -n $busybox ]] || { echo "SKIPPED: no guest in the cache; run ./dev guest"; exit 77; }
modules=${1:-$(dirname "$kernel")}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p r/{bin,modules,proc,sys,dev,tmp} iso/boot/grub
cp "$busybox" r/bin/busybox
cp "$modules"/{kvm,kvm-intel}.ko "${kernel%/arch/*}/virt/lib/irqbypass.ko" r/modules/
for program in understudy tests/unit/kvm_host/kvm_guest_on_this_host; do
  strip -o "r/bin/${program##*/}" "$root/build/release/$program"
  for library in $(ldd "$root/build/release/$program" | grep -o '/[^ ]*\.so[^ ]*'); do
    install -D "$library" "r$library"
  done
done
# A fiftieth of the loop: this machine is slow.
sed 's/mov     \$20000, %ecx/mov     $400, %ecx/' "$root/tests/vm/count.S" >count.S
gcc -m32 -nostdlib -static -no-pie -Wl,-Ttext=0x200000,--build-id=none,-z,noexecstack -o r/count.elf count.S
cat >r/init <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev; mount -t tmpfs t /tmp
cd /tmp
for m in irqbypass kvm kvm-intel; do insmod /modules/$m.ko; done
understudy hostcheck | grep -v '^ '
understudy record --backend kvm --kvm-steps --kernel /count.elf --memory 32M --debug-exit -o rec; echo "record: $?"
understudy -q replay rec --kvm-steps; echo "replay: $?"
kvm_guest_on_this_host 8; echo "guest: $?"
sleep 5
poweroff -f
END
chmod +x r/init
(cd r && find . | cpio -o -H newc --quiet | gzip -1) >iso/boot/initrd
cp "$root/build/guest/vmlinuz" iso/boot/
cat >iso/boot/grub/grub.cfg <<'END'
set timeout=0
menuentry kvm {
 linux /boot/vmlinuz console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off
 initrd /boot/initrd
}
END
grub-mkrescue -o boot.iso iso >grub.log 2>&1 || { cat grub.log; exit 1; }
cat >bochsrc <<END
display_library: rfb, options="timeout=0"
memory: guest=1024, host=1024
cpu: model=$model, ips=200000000
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
log: bochs.log
clock: sync=none, time0=1700000000
speaker: enabled=0
END
# Debian's Bochs is built with its debugger, which asks before it begins.
echo c | timeout "$limit" bochs -q -f bochsrc >bochs.out 2>&1 || true
tr -d '\r' <serial.txt | grep -v '^\[ *[0-9]'
for part in record replay guest; do
  grep -q "^$part: 0" serial.txt
done
