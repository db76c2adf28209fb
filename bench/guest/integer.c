/* Integer work full of branches that depend on data: queens on a board by bit masks, greatest
 * common divisors without division, sorting, and a bitwise checksum. */
#include <stdlib.h>

#include "bench.h"

static uint64_t queens(uint32_t all, uint32_t columns, uint32_t left, uint32_t right) {
  if (columns == all) return 1;
  uint64_t found = 0;
  for (uint32_t open = all & ~(columns | left | right); open;) {
    const uint32_t bit = open & -open;
    open ^= bit;
    found += queens(all, columns | bit, (left | bit) << 1, (right | bit) >> 1);
  }
  return found;
}

static uint64_t divisors(uint64_t rounds) {
  uint64_t sum = 0, seed = 1;
  for (uint64_t i = 0; i < rounds; i++) {
    uint32_t a = (uint32_t)next_random(&seed) | 1, b = (uint32_t)next_random(&seed) | 1;
    while (a != b) { /* binary algorithm: both stay odd */
      if (a < b) {
        const uint32_t t = a;
        a = b;
        b = t;
      }
      a -= b;
      while (!(a & 1)) a >>= 1;
    }
    sum += a;
  }
  return sum;
}

static void sift(uint32_t* heap, uint32_t at, uint32_t size) {
  for (;;) {
    uint32_t child = 2 * at + 1;
    if (child >= size) return;
    if (child + 1 < size && heap[child + 1] > heap[child]) child++;
    if (heap[at] >= heap[child]) return;
    const uint32_t t = heap[at];
    heap[at] = heap[child];
    heap[child] = t;
    at = child;
  }
}

static uint64_t sort_numbers(uint64_t rounds) {
  enum { kNumbers = 1 << 16 };
  uint32_t* numbers = malloc(kNumbers * sizeof *numbers);
  uint64_t sum = 0, seed = 2;
  for (uint64_t r = 0; r < rounds; r++) {
    for (uint32_t i = 0; i < kNumbers; i++) numbers[i] = (uint32_t)next_random(&seed);
    for (uint32_t i = kNumbers / 2; i-- > 0;) sift(numbers, i, kNumbers);
    for (uint32_t size = kNumbers - 1; size > 0; size--) {
      const uint32_t t = numbers[0];
      numbers[0] = numbers[size];
      numbers[size] = t;
      sift(numbers, 0, size);
    }
    for (uint32_t i = 0; i < kNumbers; i += 997) sum = sum * 31 + numbers[i];
  }
  free(numbers);
  return sum;
}

static uint64_t checksum(uint64_t bytes) {
  uint32_t crc = ~0u;
  for (uint64_t i = 0; i < bytes; i++) {
    crc ^= (uint8_t)(i * 167);
    for (int bit = 0; bit < 8; bit++) {
      if (crc & 1)
        crc = (crc >> 1) ^ 0x82f63b78u;
      else
        crc >>= 1;
      __asm__ volatile("" : "+r"(crc)); /* keeps the branch and the loop as written */
    }
  }
  return crc;
}

uint64_t bench_integer(int scale) {
  uint64_t result = 0;
  for (uint64_t i = 0; i < scaled(4, scale); i++) result += queens((1 << 12) - 1, 0, 0, 0);
  result = result * 31 + divisors(scaled(1500000, scale));
  result = result * 31 + sort_numbers(scaled(30, scale));
  return result * 31 + checksum(scaled(28u << 20, scale));
}
