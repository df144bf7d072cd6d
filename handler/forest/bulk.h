/* Many rows at once through trees of few levels, WIDTH rows side by side; included by walk.c once for each width.
 *
 * A tree is padded to a complete one. All its splits are compared, whichever way a row goes, and the leaf is chosen from the
 * bottom up by masks: no branch, no gather. At depth 5 that is 31 comparisons where a walk takes 5 steps, and 5 times as
 * fast, because a step waits for memory and for the step before it.
 *
 * Of a deeper tree the upper levels are compared so, and a walk goes on from there: half as many steps at depth 8.
 *
 * Rule: a row's sum is made of the same numbers in the same order as by walk().
 *
 * WIDTH    rows in a vector
 * TARGET   the instructions it is compiled for
 * NAME(x)  x with a suffix of its own
 */

typedef float NAME(floats) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t NAME(masks) __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t NAME(words) __attribute__((vector_size(4 * WIDTH)));

#define INLINE static inline __attribute__((always_inline, target(TARGET)))

/* Rows go by in pairs of vectors: what is in all lanes, thresholds and leaves, is then loaded once for both. */
typedef struct {
    NAME(floats) first, second;
} NAME(pair);

INLINE NAME(floats) NAME(choose)(NAME(floats) x, float threshold, NAME(floats) left, NAME(floats) right) {
    const NAME(masks) is_left = x < threshold;
    return (NAME(floats))(((NAME(masks))left & is_left) | ((NAME(masks))right & ~is_left));
}

INLINE NAME(pair) NAME(choose_both)(const float *column, float threshold, NAME(pair) left, NAME(pair) right) {
    const NAME(floats) *const x = (const NAME(floats) *)column;
    return (NAME(pair)){NAME(choose)(x[0], threshold, left.first, right.first),
                        NAME(choose)(x[1], threshold, left.second, right.second)};
}

/* The leaf values of two vectors of rows in the subtree at a node, one function for each number of levels of splits in it.
 * columns: the rows' numbers, column by column. */
#define ARGUMENTS const complete_t *tree, const float *columns, uint32_t at

INLINE NAME(pair) NAME(below_0)(ARGUMENTS) {
    (void)columns;
    const NAME(floats) leaf = tree->number[at] - (NAME(floats)){0}; /* in all lanes, as it is: minus zero keeps its sign */
    return (NAME(pair)){leaf, leaf};
}

#define BELOW(levels, fewer)                                                                           \
    INLINE NAME(pair) NAME(below_##levels)(ARGUMENTS) {                                                \
        const NAME(pair) left = NAME(below_##fewer)(tree, columns, 2 * at + 1);                        \
        const NAME(pair) right = NAME(below_##fewer)(tree, columns, 2 * at + 2);                       \
        return NAME(choose_both)(columns + tree->column[at], tree->number[at], left, right);           \
    }
BELOW(1, 0)
BELOW(2, 1)
BELOW(3, 2)
BELOW(4, 3)
BELOW(5, 4)
BELOW(6, 5)

#define WITH_LEVELS(n)                                                                                 \
    case n:                                                                                            \
        for (size_t row = 0; row < n_rows; row += 2 * WIDTH) {                                         \
            const NAME(pair) leaves = NAME(below_##n)(tree, columns + row, 0);                         \
            NAME(floats) *const sum = (NAME(floats) *)(sums + row);                                    \
            sum[0] += leaves.first;                                                                    \
            sum[1] += leaves.second;                                                                   \
        }                                                                                              \
        return;

/* Adds a tree's leaves to the sums of n_rows rows, a multiple of twice WIDTH. */
static __attribute__((target(TARGET), noinline)) void NAME(add)(
    const complete_t *tree, const float *columns, size_t n_rows, float *sums) {
    switch (tree->n_levels) {
        WITH_LEVELS(0)
        WITH_LEVELS(1)
        WITH_LEVELS(2)
        WITH_LEVELS(3)
        WITH_LEVELS(4)
        WITH_LEVELS(5)
        WITH_LEVELS(6)
    }
}

#undef WITH_LEVELS
#undef BELOW
#undef ARGUMENTS

/* The same of a tree's upper levels, and the nodes below them in the leaves' place; as floats, of which no bit is touched. */
#define ARGUMENTS const upper_t *tree, const float *columns, uint32_t at

INLINE NAME(pair) NAME(upper_0)(ARGUMENTS) {
    (void)columns;
    const NAME(floats) below = (NAME(floats))(tree->below[at - UPPER_SPLITS] + (NAME(words)){0});
    return (NAME(pair)){below, below};
}

#define UPPER(levels, fewer)                                                                           \
    INLINE NAME(pair) NAME(upper_##levels)(ARGUMENTS) {                                                \
        const NAME(pair) left = NAME(upper_##fewer)(tree, columns, 2 * at + 1);                        \
        const NAME(pair) right = NAME(upper_##fewer)(tree, columns, 2 * at + 2);                       \
        return NAME(choose_both)(columns + tree->column[at], tree->number[at], left, right);           \
    }
UPPER(1, 0)
UPPER(2, 1)
UPPER(3, 2)
UPPER(4, 3)

/* Finds the node below the upper levels for each of n_rows rows, a multiple of twice WIDTH. */
static __attribute__((target(TARGET), noinline)) void NAME(find)(
    const upper_t *tree, const float *columns, size_t n_rows, uint32_t *found) {
    for (size_t row = 0; row < n_rows; row += 2 * WIDTH) {
        const NAME(pair) nodes = NAME(upper_4)(tree, columns + row, 0);
        NAME(floats) *const node = (NAME(floats) *)(found + row);
        node[0] = nodes.first;
        node[1] = nodes.second;
    }
}

#undef UPPER
#undef ARGUMENTS
#undef INLINE
