/* Whole-device reads and writes past the page cache. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

static uint64_t transfer(const char* device, int writing, uint64_t bytes, size_t piece) {
  const int fd = open(device, (writing ? O_RDWR : O_RDONLY) | O_DIRECT);
  void* memory = 0;
  if (fd < 0 || posix_memalign(&memory, 4096, piece)) {
    printf("us-bench: %s: %s\n", device, strerror(errno));
    return 0;
  }
  uint8_t* buffer = memory;
  uint64_t seed = 6, sum = 0, done = 0;
  for (size_t i = 0; i < piece; i += 8) {
    const uint64_t value = next_random(&seed);
    memcpy(buffer + i, &value, 8);
  }
  while (done < bytes) {
    if (writing) memcpy(buffer, &done, sizeof done);
    const ssize_t n = writing ? write(fd, buffer, piece) : read(fd, buffer, piece);
    if (n <= 0) break;
    done += (uint64_t)n;
    sum = sum * 31 + buffer[0] + buffer[n - 1];
  }
  if (writing) fsync(fd);
  close(fd);
  free(memory);
  printf("@@BYTES %llu\n", (unsigned long long)done);
  return sum;
}

uint64_t bench_disk_read(int scale, const char* device) {
  return transfer(device, 0, scaled(256u << 20, scale), 128 << 10);
}

uint64_t bench_disk_read_small(int scale, const char* device) {
  return transfer(device, 0, scaled(16u << 20, scale), 4096);
}

uint64_t bench_disk_write(int scale, const char* device) {
  return transfer(device, 1, scaled(128u << 20, scale), 128 << 10);
}
