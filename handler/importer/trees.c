/* The trees of a booster's UBJSON, each field of all of them into a column.
 *
 * Rule: only trees as XGBoost writes them are read, with numerical splits and one value a leaf. All else is declined, sound or not,
 * and then Python reads it (ubj.py, document.py) and refuses it in its own words. No byte is looked at before it is known to be
 * there, and nothing is believed of the numbers themselves: checks.py judges those.
 */

#include <stdint.h>
#include <string.h>

#include "cursor.h"

enum { N_COLUMNS = 10, MAX_DIGITS = 9 };
static const uint32_t DELETED_SPLIT = 0x7fffffff; /* with default_left */

/* In the order of trees.py. FLOAT and INT are 4 bytes in the file; an INT64 is an INT there. */
typedef enum { FLOAT, INT, INT64, BYTE } kind_t;
static const struct {
    const char *name;
    kind_t kind;
} COLUMNS[N_COLUMNS] = {
    {"base_weights", FLOAT},  {"default_left", BYTE},      {"left_children", INT},   {"loss_changes", FLOAT}, {"parents", INT},
    {"right_children", INT},  {"split_conditions", FLOAT}, {"split_indices", INT64}, {"split_type", BYTE},    {"sum_hessian", FLOAT},
};
enum { DEFAULT_LEFT = 1, SPLIT_INDICES = 7 };
static const char *const CATEGORIES[] = {"categories", "categories_nodes", "categories_segments", "categories_sizes"};
static const char *const PARAMETERS[] = {"num_deleted", "num_feature", "num_nodes", "size_leaf_vector"};
enum { NUM_DELETED, NUM_FEATURE, NUM_NODES, SIZE_LEAF_VECTOR };

static int takes(cursor_t *cursor, const char *bytes, int64_t n_bytes) {
    if (n_left(cursor) < n_bytes || memcmp(cursor->at, bytes, (size_t)n_bytes)) return 0;
    cursor->at += n_bytes;
    return 1;
}

static int is(text_t text, const char *name) {
    return text.n_bytes == (int64_t)strlen(name) && !memcmp(text.at, name, (size_t)text.n_bytes);
}

/* A count as XGBoost writes it in a string; DECLINED for anything else. */
static int64_t count_of(text_t text) {
    int64_t value = 0;
    if (text.n_bytes < 1 || text.n_bytes > MAX_DIGITS || (text.n_bytes > 1 && *text.at == '0')) return DECLINED;
    for (int64_t at = 0; at < text.n_bytes; at++) {
        if (text.at[at] < '0' || text.at[at] > '9') return DECLINED;
        value = 10 * value + text.at[at] - '0';
    }
    return value;
}

/* The parameters of one tree: counts, each DECLINED where it is not there. */
static int take_parameters(cursor_t *cursor, int64_t counts[4]) {
    for (int name = 0; name < 4; name++) counts[name] = DECLINED;
    if (!takes(cursor, "{", 1)) return 0;
    while (!takes(cursor, "}", 1)) {
        text_t key, value;
        int name = 0;
        if (!take_text(cursor, &key) || !takes(cursor, "S", 1) || !take_text(cursor, &value)) return 0;
        while (name < 4 && !is(key, PARAMETERS[name])) name++;
        if (name == 4 || counts[name] != DECLINED || (counts[name] = count_of(value)) == DECLINED) return 0;
    }
    return counts[NUM_NODES] != DECLINED;
}

static int take_number(cursor_t *cursor, int64_t wanted) {
    if (cursor->at == cursor->end) return 0;
    const uint8_t marker = *cursor->at++;
    const int n_bytes = marker == 'i' ? 1 : marker == 'I' ? 2 : marker == 'l' ? 4 : marker == 'L' ? 8 : 0;
    if (!n_bytes || n_left(cursor) < n_bytes || big_endian(cursor->at, n_bytes) != wanted) return 0;
    cursor->at += n_bytes;
    return 1;
}

/* The head of an array of one type; its length. */
static int64_t take_head(cursor_t *cursor, char code, int item_bytes) {
    const char head[] = {'[', '$', code, '#'};
    return takes(cursor, head, sizeof head) ? take_length(cursor, item_bytes) : DECLINED;
}

static void swap(const uint8_t *from, int64_t n, kind_t kind, void *into, int64_t at) {
    uint32_t word;
    if (kind == BYTE)
        memcpy((uint8_t *)into + at, from, (size_t)n);
    else if (kind == INT64)
        for (int64_t item = 0; item < n; item++) {
            memcpy(&word, from + 4 * item, sizeof word);
            ((int64_t *)into)[at + item] = (int32_t)__builtin_bswap32(word);
        }
    else
        for (int64_t item = 0; item < n; item++) {
            memcpy(&word, from + 4 * item, sizeof word);
            ((uint32_t *)into)[at + item] = __builtin_bswap32(word);
        }
}

/* One tree, its nodes from `first` on; how many they are, or DECLINED. */
static int64_t take_tree(cursor_t *cursor, int64_t number, int64_t first, int64_t max_nodes, void *const columns[N_COLUMNS]) {
    int64_t n_nodes = DECLINED, counts[4];
    uint32_t seen = 0; /* columns, behind them categories, id, tree_param */
    enum { ID = N_COLUMNS + 4, TREE_PARAM };
    if (!takes(cursor, "{", 1)) return DECLINED;
    while (!takes(cursor, "}", 1)) {
        text_t key;
        int field = 0;
        if (!take_text(cursor, &key)) return DECLINED;
        while (field < N_COLUMNS && !is(key, COLUMNS[field].name)) field++;
        if (field == N_COLUMNS) {
            while (field < ID && !is(key, CATEGORIES[field - N_COLUMNS])) field++;
            if (field == ID && !is(key, "id")) field = is(key, "tree_param") ? TREE_PARAM : TREE_PARAM + 1;
        }
        if (field > TREE_PARAM || seen >> field & 1) return DECLINED;
        seen |= 1u << field;
        if (field < N_COLUMNS) {
            const kind_t kind = COLUMNS[field].kind;
            const int item_bytes = kind == BYTE ? 1 : 4;
            const int64_t n = take_head(cursor, kind == FLOAT ? 'd' : kind == BYTE ? 'U' : 'l', item_bytes);
            if (n < 1 || (n_nodes != DECLINED && n != n_nodes) || n > max_nodes - first) return DECLINED;
            n_nodes = n;
            swap(cursor->at, n, kind, columns[field], first);
            cursor->at += n * item_bytes;
        } else if (field < ID) {
            const char code = n_left(cursor) > 2 ? (char)cursor->at[2] : 0;
            if ((code != 'l' && code != 'L') || take_head(cursor, code, 1) != 0) return DECLINED;
        } else if (field == ID ? !take_number(cursor, number) : !take_parameters(cursor, counts))
            return DECLINED;
    }
    const uint32_t needed = ((1u << N_COLUMNS) - 1) | 1u << ID | 1u << TREE_PARAM;
    if ((seen & needed) != needed || counts[NUM_NODES] != n_nodes || counts[SIZE_LEAF_VECTOR] > 1) return DECLINED;
    int64_t n_deleted = 0;
    for (int64_t node = first; node < first + n_nodes; node++)
        n_deleted += ((const int64_t *)columns[SPLIT_INDICES])[node] == DELETED_SPLIT && ((const uint8_t *)columns[DEFAULT_LEFT])[node] == 1;
    return counts[NUM_DELETED] != DECLINED && counts[NUM_DELETED] != n_deleted ? DECLINED : n_nodes;
}

/* Reads n_trees trees that begin at a byte of the document. sizes: room for each tree's number of nodes. columns: room for max_nodes
 * each. Returns where the trees end; DECLINED, with anything in the columns, where one of them is not as XGBoost writes it. */
int64_t trees_read(const uint8_t *data, int64_t n_bytes, int64_t at, int64_t n_trees, int64_t max_nodes, int64_t *sizes,
                   void *const columns[N_COLUMNS]) {
    cursor_t cursor = {data + at, data + n_bytes};
    int64_t first = 0;
    for (int64_t number = 0; number < n_trees; number++) {
        sizes[number] = take_tree(&cursor, number, first, max_nodes, columns);
        if (sizes[number] == DECLINED) return DECLINED;
        first += sizes[number];
    }
    return cursor.at - data;
}
