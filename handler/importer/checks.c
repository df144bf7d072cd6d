/* Whether ordinary trees are sound, in one pass: what checks.py looks for and spells anew, a tenth of the time.
 *
 * Rule: only what is sound is told. All else is declined, with nothing changed, and then Python looks (checks.py) and refuses it in its
 * own words. So are sound trees of which a child stands before its parent, which XGBoost writes where pruned nodes were used again.
 */

#include <math.h>
#include <stdint.h>

enum { DECLINED = 0, SOUND = 1, NO_NODE = -1, NO_PARENT = 0x7fffffff, DELETED_SPLIT = 0x7fffffff };

/* Columns of all trees, one behind another; see Trees in learner.py. */
typedef struct {
    int32_t *left, *right, *parent;
    const int64_t *split_index;
    const float *split_condition;
    const uint8_t *default_left, *split_type;
} columns_t;

static int is_deleted(const columns_t *of, int64_t node) { return of->split_index[node] == DELETED_SPLIT && of->default_left[node] == 1; }

/* One tree of n_nodes nodes, the root at `first`. depths: room for one of each node. */
static int is_tree(const columns_t *of, int64_t first, int64_t n_nodes, int64_t n_features, int max_depth, uint16_t *depths) {
    const int32_t above = of->parent[first];
    int64_t n_live = 0, n_splits = 0;
    if (n_nodes < 1 || is_deleted(of, first) || (above != NO_PARENT && above != NO_NODE)) return DECLINED;
    depths[0] = 0;
    for (int64_t node = 0; node < n_nodes; node++) {
        const int64_t at = first + node;
        if (of->default_left[at] > 1 || of->split_type[at]) return DECLINED;
        if (node && (of->parent[at] < 0 || of->parent[at] >= n_nodes)) return DECLINED;
        if (is_deleted(of, at)) continue;
        n_live++;
        if (of->split_index[at] < 0 || of->split_index[at] >= n_features) return DECLINED;
        const int64_t left = of->left[at];
        if (left == NO_NODE) {
            if (!isfinite(of->split_condition[at])) return DECLINED;
            continue;
        }
        n_splits++;
        /* Parents stand before children, so there is no cycle, and a parent's depth is known. */
        if (left <= node || left >= n_nodes - 1 || of->right[at] != left + 1 || isnan(of->split_condition[at])) return DECLINED;
        for (int64_t child = left; child <= left + 1; child++) {
            if (of->parent[first + child] != node || is_deleted(of, first + child)) return DECLINED;
            depths[child] = (uint16_t)(depths[node] + 1);
        }
        if (depths[left] > max_depth) return DECLINED;
    }
    /* No node has two parents: as many as there are children and a root are reached. One that hangs on nothing would be one too many;
     * its depth was read before anybody wrote it, and decides nothing. */
    return n_live == 1 + 2 * n_splits ? SOUND : DECLINED;
}

/* starts: n_trees + 1, where each tree's nodes begin. depths: room for as many as the largest tree has. max_depth: below 65,535. Where
 * all trees are sound, what XGBoost never looks at has one spelling afterwards, as checks.py gives it. */
int trees_are_sound(const int64_t *starts, int64_t n_trees, int64_t n_features, int max_depth, int32_t *left, int32_t *right,
                    int32_t *parent, const int64_t *split_index, const float *split_condition, const uint8_t *default_left,
                    const uint8_t *split_type, uint16_t *depths) {
    const columns_t of = {left, right, parent, split_index, split_condition, default_left, split_type};
    for (int64_t tree = 0; tree < n_trees; tree++)
        if (starts[tree + 1] > starts[n_trees] ||
            !is_tree(&of, starts[tree], starts[tree + 1] - starts[tree], n_features, max_depth, depths))
            return DECLINED;
    for (int64_t tree = 0; tree < n_trees; tree++) {
        for (int64_t node = starts[tree]; node < starts[tree + 1]; node++)
            if (left[node] == NO_NODE || is_deleted(&of, node)) left[node] = right[node] = NO_NODE;
        parent[starts[tree]] = NO_PARENT;
    }
    return SOUND;
}
