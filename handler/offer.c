/* An offer of the core, see offer.h. */

#define _GNU_SOURCE
#include "offer.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Who yields gives up what is left of its slice, as Linux 6.18 has it, and beside others who do not yield, libxgboost or Java's compiler,
 * would have a sixteenth of a core with slices of 3 ms. So it asks for short ones first; longer than those of the threads that answer
 * small requests (container/limits/libc.py), which still come first. Linux 6.12 and later; others leave everything as it was. */
enum { SLICE_NS = 200000, RESET_ON_FORK = 1 };

/* See sched_setattr(2). */
typedef struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
} attr_t;

static void take_short_slices(void) {
#ifdef SYS_sched_setattr
    attr_t attr = {0};
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) || attr.policy != SCHED_OTHER || attr.runtime <= SLICE_NS) return;
    attr.size = sizeof attr;
    attr.flags = RESET_ON_FORK; /* what it starts has ordinary slices */
    attr.runtime = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &attr, 0);
#endif
}

void offer_now(void) {
    static _Thread_local int has_short_slices;
    if (!has_short_slices) {
        has_short_slices = 1;
        take_short_slices();
    }
    sched_yield();
}
