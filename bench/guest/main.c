/* us-bench NAME... [-s PERCENT] [-d DEVICE]: runs workloads by name ("cpu": all but the disk's),
 * each between a @@BEGIN and a @@END line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

typedef uint64_t (*CpuWork)(int scale);
typedef uint64_t (*DiskWork)(int scale, const char* device);

static const struct {
  const char* name;
  CpuWork cpu;
  DiskWork disk;
} kWorkloads[] = {
    {"int", bench_integer, 0},
    {"sha256", bench_sha256, 0},
    {"tree", bench_tree, 0},
    {"syscall", bench_system_calls, 0},
    {"pipe", bench_pipe, 0},
    {"forkexec", bench_fork_exec, 0},
    {"mm", bench_matrix, 0},
    {"shloop", bench_shell, 0},
    {"diskread", 0, bench_disk_read},
    {"diskread4k", 0, bench_disk_read_small},
    {"diskwrite", 0, bench_disk_write},
};
enum { kCount = sizeof kWorkloads / sizeof kWorkloads[0] };

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void run(int index, int scale, const char* device) {
  const char* name = kWorkloads[index].name;
  printf("@@BEGIN %s\n", name);
  fflush(stdout);
  const uint64_t start = now_ns();
  const uint64_t result =
      kWorkloads[index].cpu ? kWorkloads[index].cpu(scale) : kWorkloads[index].disk(scale, device);
  printf("@@END %s result=%016llx guest_ns=%llu\n", name, (unsigned long long)result,
         (unsigned long long)(now_ns() - start));
  fflush(stdout);
}

static int run_named(const char* name, int scale, const char* device) {
  int found = 0;
  for (int i = 0; i < kCount; i++)
    if (!strcmp(name, kWorkloads[i].name) || (!strcmp(name, "cpu") && kWorkloads[i].cpu)) {
      run(i, scale, device);
      found = 1;
    }
  return found;
}

int main(int argc, char** argv) {
  int scale = 100, bad = 0, names = 0;
  const char* device = "/dev/vda";
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "-s") && i + 1 < argc)
      scale = atoi(argv[++i]);
    else if (!strcmp(argv[i], "-d") && i + 1 < argc)
      device = argv[++i];
    else
      argv[names++] = argv[i]; /* options count wherever they stand */
  }
  for (int i = 0; i < names; i++)
    if (!run_named(argv[i], scale, device)) {
      fprintf(stderr, "us-bench: no workload %s\n", argv[i]);
      bad = 2;
    }
  return bad;
}
