/* Scores rows with a forest that lies packed in memory.
 *
 * Rule: nothing here allocates or fails, and nothing is kept but which instructions there are. forest_is_sound has said of what
 * is walked that every index in it is in range, whoever packed it, and that a child always lies behind its parent, so every walk
 * ends.
 *
 * The sums are made as XGBoost 3.2 makes them, bit for bit: float32, the intercept first, then tree after tree
 * (src/predictor/cpu_predictor.cc); the transformations are those of src/objective/. Compile without contraction of
 * multiply and add, and without -ffast-math.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../offer.h"

typedef struct {
    uint32_t magic, n_nodes, n_trees, n_groups, n_features, feature_bits, transform, n_outputs;
} head_t;

/* value: the threshold, or what a leaf adds. word: how far behind this node its left child lies (0: a leaf), one bit
 * that says whether a missing value goes left, and the feature in the lowest `feature_bits`. */
typedef struct {
    float value;
    uint32_t word;
} node_t;

/* A packed forest, its parts one by one. */
typedef struct {
    const head_t *head;
    const float *base;
    const uint32_t *roots, *groups;
    const node_t *nodes;
} forest_t;

static forest_t opened(const void *packed) {
    forest_t forest = {.head = packed};
    forest.base = (const float *)(forest.head + 1);
    forest.roots = (const uint32_t *)(forest.base + forest.head->n_groups);
    forest.groups = forest.roots + forest.head->n_trees;
    forest.nodes = (const node_t *)(forest.groups + forest.head->n_trees);
    return forest;
}

enum { IDENTITY, SIGMOID, EXP, HINGE, SOFTMAX, SOFTPROB };

/* As packed.py writes it: "MMF1". */
static const uint32_t MAGIC = 0x31464d4d;

/* Of splits, in a tree; as in importer/checks.py. */
enum { MAX_LEVELS = 2048 };

/* Walks in step with each other: one waits for memory while the others go on. */
enum { LANES = 8, BLOCK = 64 };

/* step: from one of a row's numbers to the next. */
static inline __attribute__((always_inline)) void walk(
    const node_t *nodes, uint32_t feature_bits, const float *const rows[LANES], uint32_t step, uint32_t at[LANES]) {
    const uint32_t mask = (1u << feature_bits) - 1;
    uint32_t moved;
    do {
        moved = 0;
        for (int lane = 0; lane < LANES; lane++) {
            const node_t node = nodes[at[lane]];
            const uint32_t offset = node.word >> (feature_bits + 1);
            const uint32_t missing_right = ~node.word >> feature_bits & 1;
            const float x = rows[lane][(size_t)(node.word & mask) * step];
            const uint32_t right = x != x ? missing_right : !(x < node.value);
            at[lane] += offset ? offset + right : 0;
            moved |= offset;
        }
    } while (moved);
}

/* Of a tree that is scored in bulk: at most so many levels of splits. Each more doubles the comparisons; at 8 a walk is faster. */
enum { LEVELS = 6, SPLITS = (1 << LEVELS) - 1, MOST_NODES = 2 * SPLITS + 1 };
/* Rows scored in bulk at once, and numbers in their columns: 128 KiB on the stack. To make a tree complete takes 2 ns a node,
 * so fewer rows are walked (measured on an EPYC with AVX-512: as fast from 20 rows at 5 and 6 levels). AT_ONCE: rows of two
 * vectors of the widest kind; a column has a multiple of it. */
enum { BULK_ROWS = 2048, BULK_NUMBERS = 1 << 15, FEWEST_BULK_ROWS = 24, MOST_ADDED_NODES = 32, AT_ONCE = 32 };
/* For a row in one tree, about. */
enum { BULK_NS = 2, WALK_NS = 16, COPY_NS = 1 /* for a number */, TRANSFORM_NS = 8 };

/* A tree padded to a complete one, in the order of levels: the children of node i are 2i + 1 and 2i + 2.
 *
 * column: where a split's column lies. number: the thresholds of splits, and behind them what leaves add. */
typedef struct {
    uint32_t n_levels;
    uint32_t column[SPLITS];
    float number[2 * SPLITS + 1];
} complete_t;

/* The upper levels of a tree that has more, padded in the same way, and the nodes below them. Two thirds of a walk's time at 8
 * levels, three quarters at 10; five levels would be a little better for thousands of rows and worse for forty. */
enum { UPPER_LEVELS = 4, UPPER_SPLITS = (1 << UPPER_LEVELS) - 1 };
typedef struct {
    uint32_t column[UPPER_SPLITS];
    float number[UPPER_SPLITS];
    uint32_t below[UPPER_SPLITS + 1];
} upper_t;

/* False for a tree that has too many levels, or a split at which a missing value cannot be told from minus infinity.
 *
 * stride: from column to column. missing_left: how far behind a column lies its copy in which what is missing is minus
 * infinity, and so less than any threshold; in the column itself it is NaN, and less than none. */
static int complete(
    const node_t *nodes, uint32_t root, uint32_t feature_bits, uint32_t stride, uint32_t missing_left, complete_t *tree) {
    const uint32_t mask = (1u << feature_bits) - 1;
    uint32_t of_levels[2][SPLITS + 1], n = 1, at = 0, is_odd = 0;
    of_levels[0][0] = root;
    for (tree->n_levels = 0; tree->n_levels < LEVELS; tree->n_levels++) {
        const uint32_t *const level = of_levels[tree->n_levels & 1];
        uint32_t *const below = of_levels[~tree->n_levels & 1], is_split = 0;
        for (uint32_t i = 0; i < n; i++) {
            const node_t node = nodes[level[i]];
            const uint32_t offset = node.word >> (feature_bits + 1), is_one = offset != 0;
            const uint32_t is_left = node.word >> feature_bits & is_one;
            is_split |= offset;
            is_odd |= is_left & !(node.value > -INFINITY);
            tree->number[at + i] = node.value;
            tree->column[at + i] = ((node.word & mask) * stride + is_left * missing_left) & -is_one;
            below[2 * i] = level[i] + offset;
            below[2 * i + 1] = level[i] + offset + is_one;
        }
        if (is_odd) return 0;
        if (!is_split) return 1;
        at += n;
        n *= 2;
    }
    uint32_t is_split = 0;
    for (uint32_t i = 0; i < n; i++) {
        const node_t node = nodes[of_levels[LEVELS & 1][i]];
        is_split |= node.word >> (feature_bits + 1);
        tree->number[at + i] = node.value;
    }
    return !is_split;
}

/* False where a missing value cannot be told from minus infinity, as of complete(). */
static int upper(
    const node_t *nodes, uint32_t root, uint32_t feature_bits, uint32_t stride, uint32_t missing_left, upper_t *tree) {
    const uint32_t mask = (1u << feature_bits) - 1;
    uint32_t level[UPPER_SPLITS + 1] = {root};
    for (uint32_t n = 1, at = 0; n <= UPPER_SPLITS; n *= 2) {
        for (uint32_t i = n; i-- > 0;) {
            const node_t node = nodes[level[i]];
            const uint32_t offset = node.word >> (feature_bits + 1);
            const uint32_t is_left = node.word >> feature_bits & 1;
            if (offset && is_left && !(node.value > -INFINITY)) return 0;
            tree->column[at + i] = offset ? (node.word & mask) * stride + is_left * missing_left : 0;
            tree->number[at + i] = node.value;
            level[2 * i + 1] = level[i] + offset + (offset != 0);
            level[2 * i] = level[i] + offset;
        }
        at += n;
    }
    memcpy(tree->below, level, sizeof level);
    return 1;
}

typedef void add_t(const complete_t *tree, const float *columns, size_t n_rows, float *sums);
typedef void find_t(const upper_t *tree, const float *columns, size_t n_rows, uint32_t *found);

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#define WIDTH 16
#define TARGET "avx512f,avx512vl,avx512bw,avx512dq"
#define NAME(x) x##_16
#include "bulk.h"
#undef WIDTH
#undef TARGET
#undef NAME
#define WIDTH 8
#define TARGET "avx2"
#define NAME(x) x##_8
#include "bulk.h"

/* What this processor and this kernel have; NULL where four rows at a time are all it compares, which is no faster than to walk.
 *
 * __builtin_cpu_supports would say so, too, but under zig it brings that compiler's own library along, whose expf and logf then
 * stand before libm's and round differently. Asking takes microseconds on a virtual machine, so it is done once. */
static add_t *bulk;
static find_t *find;

__attribute__((constructor)) static void choose_bulk(void) {
    uint32_t a, b, c, d, enabled, none;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
    __asm__("xgetbv" : "=a"(enabled), "=d"(none) : "c"(0));
    if ((enabled & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return; /* registers of 128 and 256 bits */
    if (b & bit_AVX2) bulk = add_8, find = find_8;
    const uint32_t wanted = bit_AVX512F | bit_AVX512VL | bit_AVX512BW | bit_AVX512DQ;
    if ((enabled & 0xe6) == 0xe6 && (b & wanted) == wanted) bulk = add_16, find = find_16; /* of 512, and masks */
}
#else
static add_t *const bulk = NULL;
static find_t *const find = NULL;
#endif

/* One tree's leaves added for some rows, one row after the other. row_step, step: from row to row, and from one of a row's numbers
 * to the next. starts: nodes that rows have come to, or NULL for the root. sums: of the tree's group; sum_step: from one row's to
 * the next one's. */
static inline __attribute__((always_inline)) void add_walked(
    const node_t *nodes, uint32_t feature_bits, uint32_t root, const uint32_t *starts, const float *rows, uint32_t row_step,
    uint32_t step, int64_t n_rows, float *sums, int64_t sum_step) {
    const float *lanes[LANES];
    uint32_t at[LANES];
    for (int64_t row = 0; row < n_rows; row += LANES) {
        const int64_t n = n_rows - row < LANES ? n_rows - row : LANES;
        for (int64_t lane = 0; lane < LANES; lane++) {
            lanes[lane] = rows + (row + (lane < n ? lane : 0)) * row_step;
            at[lane] = starts ? starts[row + (lane < n ? lane : 0)] : root;
        }
        walk(nodes, feature_bits, lanes, step, at);
        for (int64_t lane = 0; lane < n; lane++) sums[(row + lane) * sum_step] += nodes[at[lane]].value;
    }
}

/* Rows that are scored in bulk at once; none where they would be too few. */
static int64_t bulk_rows(const head_t *head, int64_t n_rows) {
    const int64_t n = BULK_NUMBERS / (2 * (uint64_t)head->n_features + head->n_groups) / AT_ONCE * AT_ONCE;
    return !bulk || n_rows < FEWEST_BULK_ROWS ? 0 : n < BULK_ROWS ? n : BULK_ROWS;
}

static uint32_t padded(uint32_t n_rows) { return (n_rows + AT_ONCE - 1) / AT_ONCE * AT_ONCE; }

/* All trees' leaves added for at most BULK_ROWS rows, tree after tree. columns: the rows' numbers, column by column, each padded;
 * behind them there is room for as many again, and for the rows' sums. */
static void add_in_bulk(
    const forest_t *forest, uint32_t n_trees, uint32_t n_rows, float *columns, float *out, int64_t *done) {
    const head_t *const head = forest->head;
    const node_t *const nodes = forest->nodes;
    const uint32_t n_groups = head->n_groups, stride = padded(n_rows), missing_left = head->n_features * stride;
    float *const sums = columns + 2 * (size_t)missing_left;
    uint32_t found[BULK_ROWS];
    complete_t tree;
    upper_t top;
    for (uint32_t feature = 0; feature < head->n_features; feature++) {
        float *const column = columns + (size_t)feature * stride;
        for (uint32_t row = n_rows; row < stride; row++) column[row] = 0;
        for (uint32_t row = 0; row < stride; row++)
            column[missing_left + row] = column[row] == column[row] ? column[row] : -INFINITY;
    }
    for (uint32_t group = 0; group < n_groups; group++)
        for (uint32_t row = 0; row < stride; row++)
            sums[group * stride + row] = row < n_rows ? out[(size_t)row * n_groups + group] : 0;
    for (uint32_t t = 0; t < n_trees; t++) {
        const uint32_t root = forest->roots[t];
        const uint32_t n_nodes = (t + 1 < head->n_trees ? forest->roots[t + 1] : head->n_nodes) - root;
        const int is_worth_it = n_nodes <= MOST_NODES && n_nodes <= 2 * n_rows + MOST_ADDED_NODES;
        float *const of_group = sums + forest->groups[t] * stride;
        if (is_worth_it && complete(nodes, root, head->feature_bits, stride, missing_left, &tree)) {
            bulk(&tree, columns, stride, of_group);
            offer_core(done, (int64_t)stride * BULK_NS);
            continue;
        }
        const int has_levels = n_nodes > 2 * UPPER_SPLITS;
        const int is_found = has_levels && upper(nodes, root, head->feature_bits, stride, missing_left, &top);
        if (is_found) find(&top, columns, stride, found);
        add_walked(nodes, head->feature_bits, root, is_found ? found : NULL, columns, 1, stride, n_rows, of_group, 1);
        offer_core(done, (int64_t)n_rows * WALK_NS);
    }
    offer_core(done, (int64_t)(3 * head->n_features + 2 * n_groups) * stride * COPY_NS);
    for (uint32_t group = 0; group < n_groups; group++)
        for (uint32_t row = 0; row < n_rows; row++) out[(size_t)row * n_groups + group] = sums[group * stride + row];
}

static void softmax(float *scores, uint32_t n) {
    float most = scores[0];
    for (uint32_t i = 1; i < n; i++) most = fmaxf(scores[i], most);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        scores[i] = expf(scores[i] - most);
        sum += scores[i];
    }
    for (uint32_t i = 0; i < n; i++) scores[i] /= (float)sum;
}

static float largest(const float *scores, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (scores[i] > scores[best]) best = i;
    return (float)best;
}

static float transformed(float margin, uint32_t transform) {
    switch (transform) {
    case SIGMOID: {
        const float x = -margin < 88.7f ? -margin : 88.7f;
        return 1.0f / (expf(x) + 1.0f + 1e-16f);
    }
    case EXP: return expf(margin);
    case HINGE: return margin > 0.0f ? 1.0f : 0.0f;
    default: return margin;
    }
}

/* How many nodes the largest tree has; 0 where the head, or where the trees begin, is not sound. */
int64_t forest_largest_tree(const void *forest, int64_t n_bytes) {
    head_t head;
    if (n_bytes < (int64_t)sizeof head) return 0;
    memcpy(&head, forest, sizeof head);
    const uint64_t n_fixed = sizeof head + 4 * (uint64_t)head.n_groups + 8 * (uint64_t)head.n_trees + 8 * (uint64_t)head.n_nodes;
    if (head.magic != MAGIC || n_fixed > (uint64_t)n_bytes) return 0;
    if (!head.n_trees || !head.n_groups || !head.n_nodes || !head.n_features) return 0;
    if (head.feature_bits < 1 || head.feature_bits > 30 || head.transform > SOFTPROB) return 0;
    if (head.n_outputs != (head.transform == SOFTMAX ? 1 : head.n_groups)) return 0;
    const uint32_t *roots = opened(forest).roots;
    if (roots[0] != 0) return 0;
    uint32_t most = 0;
    for (uint32_t tree = 0; tree < head.n_trees; tree++) {
        const uint32_t end = tree + 1 < head.n_trees ? roots[tree + 1] : head.n_nodes;
        if (end > head.n_nodes || roots[tree] >= end) return 0;
        most = end - roots[tree] > most ? end - roots[tree] : most;
    }
    return most;
}

/* Whether n_bytes can be walked: whatever is in them, no walk then reads or writes outside of them, of a row of n_features, or
 * of n_groups scores. Each tree is one: no node has two parents or MAX_LEVELS above it, and where none leads nothing goes on, so
 * that to go through all ways is as much work as there are nodes. levels: room for a number for each node of the largest tree. */
int forest_is_sound(const void *packed, int64_t n_bytes, uint16_t *levels) {
    if (!forest_largest_tree(packed, n_bytes)) return 0;
    const forest_t forest = opened(packed);
    const head_t *const head = forest.head;
    const uint32_t mask = (1u << head->feature_bits) - 1;
    for (uint32_t tree = 0; tree < head->n_trees; tree++) {
        const uint32_t root = forest.roots[tree];
        const uint32_t n = (tree + 1 < head->n_trees ? forest.roots[tree + 1] : head->n_nodes) - root;
        if (forest.groups[tree] >= head->n_groups) return 0;
        memset(levels, 0, n * sizeof *levels);
        levels[0] = 1;
        for (uint32_t at = 0; at < n; at++) {
            const uint32_t word = forest.nodes[root + at].word, offset = word >> (head->feature_bits + 1);
            if ((word & mask) >= head->n_features) return 0;
            if (!offset) continue;
            if ((uint64_t)at + offset + 1 >= n || !levels[at] || levels[at] > MAX_LEVELS) return 0;
            uint16_t *const below = levels + at + offset;
            if (below[0] || below[1]) return 0;
            below[0] = below[1] = (uint16_t)(levels[at] + 1);
        }
    }
    return 1;
}

static void begin(const forest_t *forest, int64_t n_rows, float *out) {
    const uint32_t n_groups = forest->head->n_groups;
    for (int64_t row = 0; row < n_rows; row++)
        for (uint32_t group = 0; group < n_groups; group++) out[row * n_groups + group] = forest->base[group];
}

static void transform_all(const head_t *head, int64_t n_rows, float *out, int64_t *done) {
    const uint32_t n_groups = head->n_groups;
    switch (head->transform) {
    case IDENTITY: return;
    case SOFTMAX:
        for (int64_t row = 0; row < n_rows; row++) {
            out[row] = largest(out + row * n_groups, n_groups);
            offer_core(done, n_groups * COPY_NS);
        }
        return;
    case SOFTPROB:
        for (int64_t row = 0; row < n_rows; row++) {
            softmax(out + row * n_groups, n_groups);
            offer_core(done, n_groups * TRANSFORM_NS);
        }
        return;
    default:
        for (int64_t i = 0; i < n_rows * n_groups; i++) {
            out[i] = transformed(out[i], head->transform);
            offer_core(done, TRANSFORM_NS);
        }
    }
}

/* As forest_predict; done: as of offer_core. */
static void predict(
    const void *packed, const float *rows, int64_t n_rows, uint32_t n_trees, int is_margin, float *out, int64_t *done) {
    const forest_t forest = opened(packed);
    const head_t *const head = forest.head;
    const node_t *const nodes = forest.nodes;
    const uint32_t n_groups = head->n_groups, n_features = head->n_features;
    if (n_trees > head->n_trees) n_trees = head->n_trees;
    const float *lanes[LANES];
    uint32_t at[LANES];

    begin(&forest, n_rows, out);
    const int64_t most = bulk_rows(head, n_rows);
    if (most) {
        float columns[BULK_NUMBERS];
        for (int64_t first = 0; first < n_rows; first += most) {
            const uint32_t n = n_rows - first < most ? n_rows - first : most, stride = padded(n);
            for (uint32_t feature = 0; feature < n_features; feature++)
                for (uint32_t row = 0; row < n; row++)
                    columns[(size_t)feature * stride + row] = rows[(first + row) * n_features + feature];
            add_in_bulk(&forest, n_trees, n, columns, out + first * n_groups, done);
        }
    } else if (n_rows < LANES) {
        for (int64_t row = 0; row < n_rows; row++) {
            for (int lane = 0; lane < LANES; lane++) lanes[lane] = rows + row * n_features;
            for (uint32_t tree = 0; tree < n_trees; tree += LANES) {
                const uint32_t n = n_trees - tree < LANES ? n_trees - tree : LANES;
                for (uint32_t lane = 0; lane < LANES; lane++) at[lane] = forest.roots[tree + (lane < n ? lane : 0)];
                walk(nodes, head->feature_bits, lanes, 1, at);
                for (uint32_t lane = 0; lane < n; lane++)
                    out[row * n_groups + forest.groups[tree + lane]] += nodes[at[lane]].value;
                offer_core(done, LANES * WALK_NS);
            }
        }
    } else {
        for (int64_t block = 0; block < n_rows; block += BLOCK) {
            const int64_t n = n_rows - block < BLOCK ? n_rows - block : BLOCK;
            for (uint32_t tree = 0; tree < n_trees; tree++) {
                add_walked(nodes, head->feature_bits, forest.roots[tree], NULL, rows + block * n_features, n_features, 1, n,
                           out + block * n_groups + forest.groups[tree], n_groups);
                offer_core(done, n * WALK_NS);
            }
        }
    }
    if (!is_margin) transform_all(head, n_rows, out, done);
}

/* rows: (n_rows, n_features). n_trees: how many of the forest's trees are walked, from the first on. out: room for (n_rows,
 * n_groups); holds (n_rows, n_outputs) when this returns, and (n_rows, n_groups) for margins. */
void forest_predict(const void *packed, const float *rows, int64_t n_rows, uint32_t n_trees, int is_margin, float *out) {
    int64_t done = 0;
    predict(packed, rows, n_rows, n_trees, is_margin, out, &done);
}

/* Rows [start, end) of columns that have n_rows, scored by a forest of one output. */
static void predict_group(
    const void *packed, const float *columns, int64_t n_rows, int64_t start, int64_t end, float *out, int64_t *done) {
    const forest_t forest = opened(packed);
    const uint32_t n_features = forest.head->n_features;
    float numbers[BULK_NUMBERS];
    const int64_t in_bulk = bulk_rows(forest.head, end - start);
    const int64_t most = in_bulk ? in_bulk : BULK_NUMBERS / n_features;
    if (in_bulk) begin(&forest, end - start, out + start);
    for (int64_t first = start; first < end; first += most) {
        const uint32_t n = end - first < most ? end - first : most, stride = padded(n);
        for (uint32_t feature = 0; feature < n_features; feature++) {
            const float *const column = columns + feature * n_rows + first;
            if (in_bulk)
                memcpy(numbers + (size_t)feature * stride, column, n * sizeof *column);
            else
                for (uint32_t row = 0; row < n; row++) numbers[(size_t)row * n_features + feature] = column[row];
        }
        if (in_bulk)
            add_in_bulk(&forest, forest.head->n_trees, n, numbers, out + first, done);
        else
            predict(packed, numbers, n, UINT32_MAX, 0, out + first, done);
    }
    if (in_bulk) transform_all(forest.head, end - start, out + start, done);
}

/* Plain scores of groups of rows, each by a forest of one output. borders: two for each group, where its rows begin and end.
 * columns: (n_features, n_rows); as many as each forest has, and no more than BULK_NUMBERS. out: room for n_rows. */
void forests_predict(const void *const *forests, int64_t n_groups, const int64_t *borders, const float *columns, int64_t n_rows,
                     float *out) {
    int64_t done = 0;
    for (int64_t group = 0; group < n_groups; group++)
        predict_group(forests[group], columns, n_rows, borders[2 * group], borders[2 * group + 1], out, &done);
}

/* An intercept as XGBoost stores it, before its link: what the sum of the leaves begins with. */
float forest_margin(float intercept, int transform) {
    switch (transform) {
    case SIGMOID: {
        const float most = 1.0f - 1e-6f;
        const float x = intercept < 1e-6f ? 1e-6f : intercept > most ? most : intercept;
        return -logf(1.0f / x - 1.0f);
    }
    case EXP: return logf(intercept);
    default: return intercept;
    }
}
