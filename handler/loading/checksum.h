/* checksum.c, as kept.c and the sanitizers call it. */

#pragma once

#include <stdint.h>

/* XXH64 of n_bytes. seed: the checksum of what comes before them, or 0. */
uint64_t checksum(const void *data, int64_t n_bytes, uint64_t seed);
