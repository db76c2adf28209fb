/* The kernel's paths: system calls, switches between two processes, process creation, a shell. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

uint64_t bench_system_calls(int scale) {
  uint64_t same = 0;
  const long parent = syscall(SYS_getppid);
  for (uint64_t i = 0; i < scaled(2000000, scale); i++) same += syscall(SYS_getppid) == parent;
  return same;
}

/* Copies `trips` single bytes from one pipe to another. */
static int bounce(int from, int to, uint64_t trips) {
  char byte;
  for (uint64_t i = 0; i < trips; i++)
    if (read(from, &byte, 1) != 1 || write(to, &byte, 1) != 1) return 1;
  return 0;
}

uint64_t bench_pipe(int scale) {
  int there[2], back[2], status = 0;
  const uint64_t trips = scaled(40000, scale);
  if (pipe(there) || pipe(back)) return ~0ull;
  const pid_t child = fork();
  if (child == 0) _exit(bounce(there[0], back[1], trips));
  uint64_t sum = 0;
  for (uint64_t i = 0; i < trips; i++) {
    char byte = (char)i;
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) break;
    sum += (uint8_t)byte;
  }
  waitpid(child, &status, 0);
  for (int i = 0; i < 2; i++) close(there[i]), close(back[i]);
  return sum << 16 | (uint64_t)(status & 0xffff);
}

static int run_program(const char* path, const char* a, const char* b, const char* c) {
  const pid_t child = fork();
  if (child == 0) {
    execl(path, a, b, c, (char*)0);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

uint64_t bench_fork_exec(int scale) {
  uint64_t failed = 0;
  for (uint64_t i = 0; i < scaled(1000, scale); i++)
    failed += run_program("/bin/busybox", "busybox", "true", 0) != 0;
  return failed;
}

uint64_t bench_shell(int scale) {
  char rounds[24];
  snprintf(rounds, sizeof rounds, "%llu", (unsigned long long)scaled(100, scale));
  setenv("ROUNDS", rounds, 1);
  return (uint64_t)run_program("/bin/busybox", "sh", "/us/shell-loop.sh", 0);
}
