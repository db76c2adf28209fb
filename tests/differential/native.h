// The host's own processor: runs batches of tests in a child process, one signal a test. The
// handler that a test's final exception calls reads the registers from the signal frame and puts
// the next test's there, so returning from the handler starts it.
#pragma once

#include <atomic>
#include <sys/types.h>

#include "tests/differential/snapshot.h"

namespace us::differential {

// Lives in memory shared with the child.
struct Bank {
  Snapshot before[kBatch];
  Snapshot after[kBatch];
  uint32_t first, count;          // tests [first, count) are run
  std::atomic<uint32_t> current;  // the test running; says which one killed the child
};

class Native {
 public:
  Native();
  ~Native();
  Native(const Native&) = delete;
  Native& operator=(const Native&) = delete;

  Bank& bank(unsigned i) { return banks_[i]; }
  // Writable view of the code region.
  uint8_t* code() { return code_; }
  // The child's data and stack regions, to compare when it is idle.
  uint8_t* data() { return data_; }
  uint8_t* stack() { return stack_; }

  // Runs bank i; finish() waits for it. False: the child died.
  void start(unsigned bank);
  bool finish();

 private:
  void spawn();

  Bank* banks_ = nullptr;
  uint8_t* code_ = nullptr;
  uint8_t* data_ = nullptr;
  uint8_t* stack_ = nullptr;
  int code_fd_ = -1, data_fd_ = -1, stack_fd_ = -1;
  int to_child_ = -1, from_child_ = -1;
  pid_t child_ = 0;
};

}  // namespace us::differential
