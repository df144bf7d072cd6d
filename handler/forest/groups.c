/* Rows put into the order of their groups, as a stable sort by the group's number would, in two passes.
 *
 * Rule: a number that is none of the groups' is said before anything is written outside of what was given.
 */

#include <stdint.h>
#include <string.h>

/* codes: each row's group. ends: room for n_groups; in it, when this returns, is where each group's rows end. order: room for
 * n_rows; in it is each row's number, group by group, and in a group as they came. False for a code that is no group's. */
int groups_order(const int32_t *codes, int64_t n_rows, int64_t n_groups, int64_t *ends, int64_t *order) {
    memset(ends, 0, (size_t)n_groups * sizeof *ends);
    for (int64_t row = 0; row < n_rows; row++) {
        if (codes[row] < 0 || codes[row] >= n_groups) return 0;
        ends[codes[row]]++;
    }
    int64_t start = 0;
    for (int64_t group = 0; group < n_groups; group++) {
        const int64_t n = ends[group];
        ends[group] = start;
        start += n;
    }
    for (int64_t row = 0; row < n_rows; row++) order[ends[codes[row]]++] = row;
    return 1;
}
