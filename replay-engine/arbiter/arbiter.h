// Who may be live: a test-and-set that both sides can reach and that survives both. Every claim
// makes a new generation; a generation has one holder for ever, so whoever lost one cannot come
// back under it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace us::replay {

enum class ClaimVerdict : uint8_t {
  kWon,          // this node holds `generation`; also when it held it already (a repeated claim)
  kLost,         // another node holds it, or a later one exists: halt
  kUnreachable,  // nobody knows: wait and ask again; `detail` says what failed
};
struct Claim {
  ClaimVerdict verdict = ClaimVerdict::kUnreachable;
  uint64_t generation = 0;  // the latest one seen
  std::string holder{};     // of that one
  std::string detail{};
};

struct ArbiterState {
  uint64_t generation = 0;  // 0: none was ever claimed
  std::string holder{};
  bool released = false;  // its holder stopped in an orderly way: the name is free
};

// Calls block (bounded by the timeout given when made) and may come from any one thread at a time.
class Arbiter {
 public:
  virtual ~Arbiter() = default;
  // Test-and-set: makes `generation` this node's if nobody has it and no later one exists.
  // Precondition: generation > 0.
  virtual Claim claim(uint64_t generation) = 0;
  // The latest generation. Error: ARB-002 unreachable.
  virtual Result<ArbiterState> look() = 0;
  // This node's generation ended in an orderly way. Harmless when it does not hold it.
  virtual Status release(uint64_t generation) = 0;
  virtual std::string text() const = 0;  // as configured, for messages
};

struct ArbiterOptions {
  std::string node;  // names this side for good: host and role
  std::string vm_name;
  std::chrono::milliseconds timeout{2000};  // of one call
};
// "file:///PATH" or "file:PATH" (on storage both hosts share), "etcd://HOST:PORT[,HOST:PORT]"
// or "etcd:HOST:PORT". Errors: ARB-001 unknown form.
Result<std::unique_ptr<Arbiter>> open_arbiter(const std::string& text,
                                              const ArbiterOptions& options);

}  // namespace us::replay
