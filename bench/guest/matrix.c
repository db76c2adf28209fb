/* Products of 256 x 256 matrices of doubles, with SSE2 as every x86-64 compiler would have it. */
#include <emmintrin.h>

#include "bench.h"

enum { kSize = 256 };
static double a[kSize][kSize] __attribute__((aligned(16)));
static double b[kSize][kSize] __attribute__((aligned(16)));
static double c[kSize][kSize] __attribute__((aligned(16)));

static void add_product(void) {
  for (int i = 0; i < kSize; i++)
    for (int k = 0; k < kSize; k++) {
      const __m128d factor = _mm_set1_pd(a[i][k]);
      for (int j = 0; j < kSize; j += 2) {
        const __m128d term = _mm_mul_pd(factor, _mm_load_pd(&b[k][j]));
        _mm_store_pd(&c[i][j], _mm_add_pd(_mm_load_pd(&c[i][j]), term));
      }
    }
}

uint64_t bench_matrix(int scale) {
  for (int i = 0; i < kSize; i++)
    for (int j = 0; j < kSize; j++) {
      a[i][j] = (double)((i * 5 + j) % 17) * 0.125;
      b[i][j] = (double)((i + j * 11) % 19) * 0.5 - 4.0;
      c[i][j] = 0;
    }
  for (uint64_t r = 0; r < scaled(60, scale); r++) add_product();
  double trace = 0;
  for (int i = 0; i < kSize; i++) trace += c[i][i] + c[i][kSize - 1 - i];
  return (uint64_t)(int64_t)(trace * 8);
}
