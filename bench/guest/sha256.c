/* SHA-256 (FIPS 180-4) over pseudo-random data, 192 MiB at full scale. The round constants are
 * computed as the standard defines them: fractional parts of the cube roots of the primes. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static uint32_t round_constants[64];

/* First 32 bits of the fractional part of p^(1/3): floor(cbrt(p * 2^96)) mod 2^32. */
static uint32_t cube_root_fraction(uint32_t p) {
  unsigned __int128 low = 0, high = (unsigned __int128)8 << 32;
  while (high - low > 1) {
    const unsigned __int128 middle = (low + high) / 2;
    /* middle < 2^35, so its cube fits; compare with p * 2^96. */
    if (middle * middle * middle <= (unsigned __int128)p << 96)
      low = middle;
    else
      high = middle;
  }
  return (uint32_t)low;
}

static void make_constants(void) {
  int count = 0;
  for (uint32_t p = 2; count < 64; p++) {
    int prime = 1;
    for (uint32_t d = 2; d * d <= p; d++)
      if (p % d == 0) prime = 0;
    if (prime) round_constants[count++] = cube_root_fraction(p);
  }
}

static inline uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void compress(uint32_t h[8], const uint8_t* block) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++) {
    memcpy(&w[i], block + 4 * i, 4);
    w[i] = __builtin_bswap32(w[i]);
  }
  for (int i = 16; i < 64; i++) {
    const uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
           (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
  }
  memcpy(s, h, sizeof s);
  for (int i = 0; i < 64; i++) {
    const uint32_t sum1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
    const uint32_t t1 = s[7] + sum1 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + round_constants[i] + w[i];
    const uint32_t sum0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
    const uint32_t t2 = sum0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    s[7] = s[6];
    s[6] = s[5];
    s[5] = s[4];
    s[4] = s[3] + t1;
    s[3] = s[2];
    s[2] = s[1];
    s[1] = s[0];
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) h[i] += s[i];
}

uint64_t bench_sha256(int scale) {
  enum { kBuffer = 1 << 20 };
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t* buffer = malloc(kBuffer);
  uint64_t seed = 3;
  make_constants();
  for (int i = 0; i < kBuffer; i += 8) {
    const uint64_t value = next_random(&seed);
    memcpy(buffer + i, &value, 8);
  }
  for (uint64_t r = 0; r < scaled(192, scale); r++)
    for (int i = 0; i < kBuffer; i += 64) compress(h, buffer + i);
  free(buffer);
  return (uint64_t)h[0] << 32 | h[1];
}
