/* Memory that is chased rather than streamed: a treap of heap nodes built, searched and torn down,
 * then one long random cycle through 8 MiB. */
#include <stdlib.h>

#include "bench.h"

struct Node {
  struct Node* child[2];
  uint64_t key;
  uint32_t priority;
};

static struct Node* insert(struct Node* root, struct Node* node) {
  if (!root) return node;
  const int side = node->key > root->key;
  root->child[side] = insert(root->child[side], node);
  struct Node* up = root->child[side];
  if (up->priority <= root->priority) return root;
  root->child[side] = up->child[!side]; /* rotate the child up */
  up->child[!side] = root;
  return up;
}

static int contains(const struct Node* node, uint64_t key) {
  while (node && node->key != key) node = node->child[key > node->key];
  return node != 0;
}

static uint64_t tear_down(struct Node* node) {
  if (!node) return 0;
  const uint64_t sum = node->key + tear_down(node->child[0]) + tear_down(node->child[1]);
  free(node);
  return sum;
}

static uint64_t treap_round(uint64_t* seed) {
  enum { kNodes = 100000 };
  struct Node* root = 0;
  const uint64_t first = *seed;
  for (int i = 0; i < kNodes; i++) {
    struct Node* node = calloc(1, sizeof *node);
    node->key = next_random(seed);
    node->priority = (uint32_t)(node->key * 0x2545f4914f6cdd1du >> 32);
    root = insert(root, node);
  }
  uint64_t hits = 0, again = first;
  for (int i = 0; i < kNodes; i++) hits += (uint64_t)contains(root, next_random(&again) + (i & 1));
  return tear_down(root) + hits;
}

static uint64_t chase(uint64_t steps) {
  enum { kCells = 1 << 21 };
  uint32_t* next = malloc(kCells * sizeof *next);
  uint64_t seed = 5;
  for (uint32_t i = 0; i < kCells; i++) next[i] = i;
  for (uint32_t i = kCells - 1; i > 0; i--) { /* Sattolo's shuffle: a single cycle */
    const uint32_t j = (uint32_t)(next_random(&seed) % i), t = next[i];
    next[i] = next[j];
    next[j] = t;
  }
  uint32_t at = 0;
  for (uint64_t i = 0; i < steps; i++) at = next[at];
  free(next);
  return at;
}

uint64_t bench_tree(int scale) {
  uint64_t result = 0, seed = 4;
  for (uint64_t r = 0; r < scaled(5, scale); r++) result += treap_round(&seed);
  return result * 31 + chase(scaled(12u << 20, scale));
}
