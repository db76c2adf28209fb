// The guests of self_test.h, exit_storms.h and of calibration: a few instructions in two MiB or
// more, with devices that answer nothing.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "hv/core/no_bus.h"
#include "hv/kvm/kvm_vcpu.h"

namespace us::hv::kvm {

constexpr uint64_t kTestCode = 0x8000;  // where the program begins
constexpr uint64_t kTestStack = 0x7000;
constexpr uint64_t kTestMemoryBytes = 2u << 20;
constexpr uint8_t kTestAttentionPort = 0x81;  // what a guest writes there ends its run

// Devices that answer with nothing.
class QuietBus final : public NoBus {
 public:
  void pio_write(uint16_t port, unsigned, uint32_t) override {
    if (port == kTestAttentionPort) attention = true;
  }
  bool msr_read(uint32_t index, uint64_t& value) override {
    value = 0xfee0'0900;  // the local APIC's base, after reset
    return index == 0x1b;
  }
  GuestTsc tsc(Branches now) override { return GuestTsc(now.value); }
  bool take_attention() override { return std::exchange(attention, false); }

  bool attention = false;  // the run under way is to end with kAttention
};

// Memory, bus and vCPU with the program in place.
struct TestGuest {
  QuietBus bus;
  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<KvmVcpu> vcpu;
};

// Long mode with all memory mapped one to one, the program at kTestCode, and a handler of #UD that
// goes on behind UD2. The guest reads no clock. `memory_bytes`: whole 2 MiB, up to 1 GiB. Errors:
// those of KvmVcpu::create.
Status make_test_guest(TestGuest& guest, KvmHost& host, const KvmOptions& options,
                       const Bytes& code, uint64_t memory_bytes = kTestMemoryBytes);

// KVM-010: a guest that stopped where it had no business to.
UserError went_astray(const KvmVcpu& vcpu, StopReason reason);

// Machine code, byte by byte.
void put(Bytes& code, std::initializer_list<unsigned> bytes);
void put_load_counter(Bytes& code, uint64_t count);  // MOV ECX, imm32
void put_loop_end(Bytes& code, size_t start);        // DEC ECX; JNZ start, in its long form

// Kicks until it is told to stop.
class Storm {
 public:
  Storm(Vcpu& vcpu, std::chrono::microseconds pause)
      : thread_([this, &vcpu, pause] {
          while (!stop_.load()) {
            vcpu.kick();
            std::this_thread::sleep_for(pause);
          }
        }) {}
  ~Storm() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace us::hv::kvm
