/* The guest's workloads. Each takes a scale in percent and gives a result that depends on all of
 * its work, so that nothing can be left out and runs can be compared. */
#ifndef US_BENCH_GUEST_BENCH_H
#define US_BENCH_GUEST_BENCH_H

#include <stdint.h>

uint64_t bench_integer(int scale);
uint64_t bench_sha256(int scale);
uint64_t bench_tree(int scale);
uint64_t bench_system_calls(int scale);
uint64_t bench_pipe(int scale);
uint64_t bench_fork_exec(int scale);
uint64_t bench_matrix(int scale);
uint64_t bench_shell(int scale);

/* Disk workloads on `device` with O_DIRECT. */
uint64_t bench_disk_read(int scale, const char* device);
uint64_t bench_disk_read_small(int scale, const char* device);
uint64_t bench_disk_write(int scale, const char* device);

/* n * scale / 100, at least 1. */
static inline uint64_t scaled(uint64_t n, int scale) {
  const uint64_t rounds = n * (uint64_t)scale / 100;
  return rounds ? rounds : 1;
}

/* splitmix64: the next of a sequence of well-mixed numbers. */
static inline uint64_t next_random(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

#endif
