/* XXH64 (Yann Collet, specification 0.1.1), by which a damaged file is told from a sound one. It takes some 2 us for the 20 KB of an
 * ordinary packed model, where SHA-256 takes 12 with the processor's own instructions for it.
 *
 * Rule: it reads n_bytes and no more, and the same bytes have the same checksum on every machine.
 */

#include "checksum.h"

#include <string.h>

static const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u, P4 = 0x85EBCA77C2B2AE63u,
                      P5 = 0x27D4EB2F165667C5u;
enum { LANES = 4, STRIPE = 8 * LANES };

static inline uint64_t turned(uint64_t x, int by) { return x << by | x >> (64 - by); }

static inline uint64_t word(const uint8_t *at) {
    uint64_t x;
    memcpy(&x, at, sizeof x);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    return x;
}

static inline uint64_t half(const uint8_t *at) {
    uint32_t x;
    memcpy(&x, at, sizeof x);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap32(x);
#endif
    return x;
}

static inline uint64_t mixed(uint64_t lane, uint64_t input) { return turned(lane + input * P2, 31) * P1; }

static uint64_t of_stripes(const uint8_t **at, const uint8_t *end, uint64_t seed) {
    uint64_t lanes[LANES] = {seed + P1 + P2, seed + P2, seed, seed - P1};
    for (; end - *at >= STRIPE; *at += STRIPE)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = mixed(lanes[lane], word(*at + 8 * lane));
    uint64_t sum = turned(lanes[0], 1) + turned(lanes[1], 7) + turned(lanes[2], 12) + turned(lanes[3], 18);
    for (int lane = 0; lane < LANES; lane++) sum = (sum ^ mixed(0, lanes[lane])) * P1 + P4;
    return sum;
}

uint64_t checksum(const void *data, int64_t n_bytes, uint64_t seed) {
    const uint8_t *at = data, *const end = at + n_bytes;
    uint64_t sum = (n_bytes >= STRIPE ? of_stripes(&at, end, seed) : seed + P5) + (uint64_t)n_bytes;
    for (; end - at >= 8; at += 8) sum = turned(sum ^ mixed(0, word(at)), 27) * P1 + P4;
    if (end - at >= 4) {
        sum = turned(sum ^ half(at) * P1, 23) * P2 + P3;
        at += 4;
    }
    for (; at < end; at++) sum = turned(sum ^ *at * P5, 11) * P1;
    sum = (sum ^ sum >> 33) * P2;
    sum = (sum ^ sum >> 29) * P3;
    return sum ^ sum >> 32;
}
