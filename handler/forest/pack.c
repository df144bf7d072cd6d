/* Nodes of checked trees as walk.c has them, in one pass.
 *
 * Rule: as packed.py does it in NumPy where there was no compiler, to the bit.
 */

#include <stdint.h>
#include <string.h>

enum { NO_NODE = -1, DELETED_SPLIT = 0x7fffffff, WORD_BITS = 32 };

/* nodes: 8 bytes for each. Returns 0 where an offset does not fit into a word. */
int trees_pack(const int64_t *starts, int64_t n_trees, int feature_bits, const int32_t *left, const int64_t *split_index,
               const float *split_condition, const uint8_t *default_left, uint8_t *nodes) {
    const int64_t max_offset = ((int64_t)1 << (WORD_BITS - 1 - feature_bits)) - 1;
    for (int64_t tree = 0; tree < n_trees; tree++) {
        if (starts[tree + 1] > starts[n_trees]) return 0;
        for (int64_t node = starts[tree]; node < starts[tree + 1]; node++) {
            const int is_deleted = split_index[node] == DELETED_SPLIT && default_left[node] == 1;
            const int is_split = left[node] != NO_NODE && !is_deleted;
            const int64_t offset = is_split ? left[node] - (node - starts[tree]) : 0;
            if (is_split && (offset < 1 || offset > max_offset)) return 0;
            const uint32_t is_left = is_deleted || (is_split && default_left[node] == 1);
            const uint32_t feature = is_split ? (uint32_t)split_index[node] : 0;
            const uint32_t word = (uint32_t)((uint64_t)offset << (feature_bits + 1)) | is_left << feature_bits | feature;
            memcpy(nodes + 8 * node, &split_condition[node], sizeof(float));
            memcpy(nodes + 8 * node + 4, &word, sizeof word);
        }
    }
    return 1;
}
