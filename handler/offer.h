/* Long work without the interpreter lock offers its core to others, about every 0.2 ms.
 *
 * Linux decides who has a core when a thread wakes, waits or yields, and at its tick, mostly 4 ms apart. Whoever wakes on a busy core
 * and has just had more than its share is not given it, and stands in that core's line until the tick, though another core may be
 * idle. The threads that answer small requests work for a moment and wait, all the time, so they stood behind long work for that long.
 *
 * Rule: only without the interpreter lock, or everybody waits for whoever was given the core.
 */

#pragma once

#include <stdint.h>

enum { OFFER_NS = 200000 };

/* An offer that nobody takes costs a third of a microsecond. */
void offer_now(void);

/* done: what was worked since the last offer, in ns by rough estimate; begins with 0. more: what has been worked now. */
static inline void offer_core(int64_t *done, int64_t more) {
    if ((*done += more) < OFFER_NS) return;
    *done = 0;
    offer_now();
}
