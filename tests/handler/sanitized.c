/* Drives walk.c, groups.c, brief.c, pack.c, trees.c, checks.c, numbers.c, jsonrows.c, libsvm.c, array.c, json.c and checksum.c with
 * forests, documents and texts that were changed at random, for AddressSanitizer and UndefinedBehaviorSanitizer to watch:
 * ./build.sh sanitize [SECONDS [SEED]]
 *
 * Everything lies in blocks of exactly its size, so that one step outside is seen.
 */

#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../handler/forest/brief.h"
#include "../../handler/loading/checksum.h"
#include "../../handler/payload/numbers.h"
#include "../../handler/telemetry/json.h"

int64_t forest_largest_tree(const void *forest, int64_t n_bytes);
int forest_is_sound(const void *forest, int64_t n_bytes, uint16_t *levels);
void forest_predict(const void *forest, const float *rows, int64_t n_rows, uint32_t n_trees, int is_margin, float *out);
void forests_predict(const void *const *forests, int64_t n_groups, const int64_t *borders, const float *columns, int64_t n_rows,
                     float *out);
int groups_order(const int32_t *codes, int64_t n_rows, int64_t n_groups, int64_t *ends, int64_t *order);
int64_t trees_read(const uint8_t *data, int64_t n_bytes, int64_t at, int64_t n_trees, int64_t max_nodes, int64_t *sizes,
                   void *const columns[10]);
int trees_are_sound(const int64_t *starts, int64_t n_trees, int64_t n_features, int max_depth, int32_t *left, int32_t *right,
                    int32_t *parent, const int64_t *split_index, const float *split_condition, const uint8_t *default_left,
                    const uint8_t *split_type, uint16_t *depths);
int trees_pack(const int64_t *starts, int64_t n_trees, int feature_bits, const int32_t *left, const int64_t *split_index,
               const float *split_condition, const uint8_t *default_left, uint8_t *nodes);
int64_t array_cut(const char *text, int64_t n_bytes, int64_t start, int64_t piece_bytes, int64_t max_commas, int64_t *cuts,
                  int64_t max_cuts);

enum { HEAD_WORDS = 8, MAX_TREES = 20, MAX_DEPTH = 7, MAX_ROWS = 150, MOST_ROWS = 5000 /* more than are scored at once */ };
static uint64_t state, n_scored;

static uint64_t draw(void) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Dull;
}

static uint32_t below(uint32_t n) { return (uint32_t)((draw() >> 16) % n); }

/* Full trees of random depth, in the layout of packed.py. Returns the number of words. */
static uint32_t make_forest(uint32_t *words) {
    const uint32_t n_trees = 1 + below(MAX_TREES), n_groups = 1 + below(4), n_features = 1 + below(40), transform = below(6);
    uint32_t feature_bits = 1;
    while (1u << feature_bits < n_features) feature_bits++;
    uint32_t depth[MAX_TREES], n_nodes = 0;
    for (uint32_t tree = 0; tree < n_trees; tree++) n_nodes += (2u << (depth[tree] = below(below(8) ? 5 : MAX_DEPTH + 1))) - 1;
    const uint32_t head[HEAD_WORDS] = {0x31464d4d, n_nodes, n_trees, n_groups, n_features, feature_bits, transform,
                                       transform == 4 ? 1 : n_groups};
    memcpy(words, head, sizeof head);
    uint32_t *at = words + HEAD_WORDS;
    for (uint32_t group = 0; group < n_groups; group++) *at++ = 0;
    uint32_t root = 0;
    for (uint32_t tree = 0; tree < n_trees; root += (2u << depth[tree++]) - 1) *at++ = root;
    for (uint32_t tree = 0; tree < n_trees; tree++) *at++ = below(n_groups);
    for (uint32_t tree = 0; tree < n_trees; tree++)
        for (uint32_t node = 0; node < (2u << depth[tree]) - 1; node++) {
            const float value = (float)below(1000) / 500 - 1;
            memcpy(at++, &value, 4);
            const uint32_t is_split = node < (1u << depth[tree]) - 1;
            *at++ = (is_split ? node + 1 : 0) << (feature_bits + 1) | below(2) << feature_bits | below(n_features);
        }
    for (uint32_t node = 0; node < n_nodes; node++) *at++ = 0; /* hessian */
    return (uint32_t)(at - words);
}

/* Rows that are mostly of as many numbers as there are features, in a block of exactly their size and a zero behind them. */
static char *make_body(form_t form, uint32_t n_features, uint32_t *n_bytes) {
    /* before all rows, before and behind each, behind all */
    static const char *const AROUND[][4] = {{"", "", "", ""}, {"", "[", "]", ""}, {"[", "[", "]", "]"},
        {"{\"instances\": [", "[", "]", "]}"}, {"{ \"instances\":[", "{\"features\": [", "]}", "]} "},
        {"", "{\"features\":[", "]}", "\n"}};
    const char *const *around = AROUND[form == IN_CSV ? 0 : form == IN_JSONLINES ? (below(2) ? 5 : 1) : 1 + below(4)];
    char text[9000];
    uint32_t n = (uint32_t)sprintf(text, "%s", around[0]);
    for (uint32_t row = 0, n_rows = below(3) ? 1 : 1 + below(20); row < n_rows && n < 5000; row++) {
        n += (uint32_t)sprintf(text + n, "%s%s", row ? (form == IN_JSON ? "," : "\n") : "", around[1]);
        for (uint32_t cell = below(30) ? 0 : 1; cell < n_features && n < 8000; cell++)
            n += (uint32_t)sprintf(text + n, cell ? ",%.*g" : "%.*g", (int)below(12), (double)below(1u << 31) / (1 + below(1u << 31)));
        n += (uint32_t)sprintf(text + n, "%s", around[2]);
    }
    n += (uint32_t)sprintf(text + n, "%s", around[3]);
    for (uint32_t change = below(5) ? 0 : below(4); n && change; change--)
        text[below(n)] = below(2) ? "[]{},:\"\n\r 0.-en"[below(16)] : (char)draw();
    if (!below(20)) n = below(n + 1);
    char *body = malloc(n + 1);
    memcpy(body, text, n);
    body[n] = 0;
    *n_bytes = n;
    return body;
}

/* As row.c does it, but for the order of what it keeps where. */
static void score_brief_with(const void *forest, uint32_t n_features, uint32_t n_trees) {
    const form_t form = (form_t)below(3);
    const around_t around = {"{[", ", ", "]}", below(3), below(3), below(3)};
    uint32_t n_bytes;
    char *body = make_body(form, n_features, &n_bytes);
    float *rows = malloc(sizeof *rows * BRIEF_CELLS), *scores = malloc(sizeof *scores * BRIEF_ROWS);
    const int64_t n_rows = brief_rows(form, body, n_bytes, n_features, rows);
    if (n_rows != NO_TEXT) {
        forest_predict(forest, rows, n_rows, n_trees, 0, scores);
        char *text = malloc((size_t)(around.n_head + n_rows * (TEXT_BYTES + around.n_between) + around.n_tail));
        n_scored += brief_answer(scores, n_rows, &around, text) != NO_TEXT;
        free(text);
    }
    free(body), free(rows), free(scores);
}

/* Any float's text, where it has one, is read back as that float. */
static void read_text_back(void) {
    const uint32_t bits = (uint32_t)draw();
    float value;
    memcpy(&value, &bits, sizeof value);
    char text[TEXT_BYTES + 1];
    const int n = brief_text(value, text);
    if (n == NO_TEXT) return;
    text[n] = 0;
    const float again = strtof(text, NULL);
    if (memcmp(&again, &value, sizeof value)) printf("%s is not %a\n", text, (double)value), exit(1);
}

static int walk_one(void) {
    static uint32_t words[HEAD_WORDS + 4 + 2 * MAX_TREES + 3 * MAX_TREES * (2 << MAX_DEPTH)];
    uint32_t n_words = make_forest(words);
    for (uint32_t change = below(4); change > 0; change--) {
        uint32_t *at = words + (below(2) ? below(n_words) : below(n_words < 60 ? n_words : 60));
        switch (below(4)) {
        case 0: *at ^= 1u << below(32); break;
        case 1: *at = below(64); break;
        case 2: *at += below(5) - 2; break;
        default: *at = (uint32_t)draw();
        }
    }
    uint32_t n_bytes = 4 * n_words;
    if (!below(20)) n_bytes = below(n_bytes + 1);
    void *forest = malloc(n_bytes ? n_bytes : 1);
    memcpy(forest, words, n_bytes);
    uint16_t *levels = malloc(sizeof *levels * (size_t)forest_largest_tree(forest, n_bytes) + 1);
    const int is_sound = forest_is_sound(forest, n_bytes, levels);
    free(levels);
    if (is_sound) {
        const uint32_t *head = forest;
        const uint32_t n_groups = head[3], n_features = head[4];
        const int64_t n_rows = below(10) ? below(20) : below(below(50) ? MAX_ROWS : MOST_ROWS);
        if (n_features <= 4096) {
            float *rows = malloc(4 * (size_t)n_features * (size_t)n_rows + 1), *out = malloc(4 * (size_t)n_groups * (size_t)n_rows + 1);
            for (int64_t cell = 0; cell < n_rows * n_features; cell++) {
                const uint32_t bits = below(8) ? 0x3f000000 + below(0x1000000) : (uint32_t)draw(); /* NaN and infinity too */
                memcpy(rows + cell, &bits, 4);
            }
            forest_predict(forest, rows, n_rows, below(head[2] + 2), (int)below(2), out);
            if (n_groups == 1) {
                const void *const forests[] = {forest, forest};
                const int64_t middle = n_rows ? below((uint32_t)n_rows) : 0, borders[] = {0, middle, middle, n_rows};
                forests_predict(forests, 2, borders, rows, n_rows, out); /* as columns they are as good as any */
                score_brief_with(forest, n_features, head[2]);
            }
            free(rows), free(out);
        }
    }
    free(forest);
    return is_sound;
}

static void order_some(void) {
    const uint32_t n_rows = below(100), n_groups = below(20);
    int32_t *codes = malloc(4 * (size_t)n_rows + 1);
    for (uint32_t row = 0; row < n_rows; row++) codes[row] = below(200) ? (int32_t)below(n_groups + 1) - !below(50) : (int32_t)draw();
    int64_t *ends = malloc(8 * (size_t)n_groups + 1), *order = malloc(8 * (size_t)n_rows + 1);
    groups_order(codes, n_rows, n_groups, ends, order);
    free(codes), free(ends), free(order);
}

static int read_one(void) {
    static const char ALPHABET[] = "0123456789.,-+eE\n\r \tnaNxi";
    const uint32_t n_bytes = 1 + below(200), n_columns = 1 + below(6), is_plain = below(2);
    char *text = malloc(n_bytes);
    uint32_t column = 1;
    for (uint32_t at = 0; at < n_bytes; at++)
        if (!is_plain)
            text[at] = ALPHABET[below(sizeof ALPHABET - 1)];
        else if (at && !below(4) && text[at - 1] >= '0') {
            text[at] = column == n_columns ? '\n' : ',';
            column = column == n_columns ? 1 : column + 1;
        } else
            text[at] = "0123456789"[below(10)];
    if (is_plain && !below(4)) text[below(n_bytes)] = ALPHABET[below(sizeof ALPHABET - 1)];
    text[n_bytes - 1] = '\n'; /* behind what counts, as the caller hands it over */
    const int64_t max_cells = below(120);
    float *out = malloc(4 * (size_t)max_cells + 1);
    const int64_t n_rows = numbers_read(text, n_bytes - 1, n_columns, out, max_cells);
    free(text), free(out);
    return n_rows > 0;
}

/* Into rows of exactly their size. A row that was read is followed by none that was written to. */
static int read_libsvm(void) {
    static const char ALPHABET[] = "0123456789.:::-+eE\n\n\r \t  naNx#q";
    const uint32_t n_bytes = 2 + below(200), n_features = below(8), is_plain = below(2);
    char *text = malloc(n_bytes);
    for (uint32_t at = 0, index = 0; at < n_bytes; at++)
        if (!is_plain)
            text[at] = ALPHABET[below(sizeof ALPHABET - 1)];
        else if (at + 4 < n_bytes && index < n_features && below(5)) {
            text[at++] = ' ', text[at++] = (char)('0' + index), text[at++] = ':', text[at] = "0123456789"[below(10)];
            index += 1 + below(2);
        } else
            text[at] = index && text[at - 1] != '\n' ? '\n' : '1', index = text[at] == '1';
    if (is_plain && !below(4)) text[below(n_bytes)] = ALPHABET[below(sizeof ALPHABET - 1)];
    text[n_bytes - 1] = '\n';
    const int64_t max_rows = below(60), start = below(n_bytes - 1);
    float *rows = malloc(4 * (size_t)(max_rows * n_features) + 1);
    for (int64_t cell = 0; cell < max_rows * n_features; cell++) rows[cell] = NAN;
    int64_t stopped;
    const int64_t n_rows = libsvm_read(text, start, n_bytes - 1, n_features, below(2), rows, max_rows, &stopped);
    if (n_rows < 0 || n_rows > max_rows || stopped < start || stopped > n_bytes - 1) abort();
    for (int64_t cell = n_rows * n_features; cell < max_rows * n_features; cell++)
        if (!isnan(rows[cell])) abort();
    free(text), free(rows);
    return n_rows > 0;
}

/* An array, in a block of exactly its size, and no more room for cuts than its caller makes. */
static void cut_one(void) {
    static const char ALPHABET[] = "[]{},\"\\1 ";
    const int64_t n_bytes = 1 + below(200), piece_bytes = 1 + below(40), max_cuts = n_bytes / piece_bytes + 2;
    char *text = malloc((size_t)n_bytes);
    for (int64_t at = 0; at < n_bytes; at++) text[at] = ALPHABET[below(sizeof ALPHABET - 1)];
    int64_t *cuts = malloc(8 * (size_t)max_cuts);
    const int64_t start = 1 + below((uint32_t)n_bytes), n_cuts = array_cut(text, n_bytes, start, piece_bytes, below(20), cuts, max_cuts);
    for (int64_t cut = 0, before = start; cut < n_cuts; before = cuts[cut++])
        if (cuts[cut] < before || cuts[cut] > n_bytes) abort();
    free(text), free(cuts);
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t n_bytes) {
    memcpy(at, bytes, n_bytes);
    return at + n_bytes;
}

static uint8_t *put_length(uint8_t *at, uint64_t n) {
    *at++ = 'L';
    for (int shift = 56; shift >= 0; shift -= 8) *at++ = (uint8_t)(n >> shift);
    return at;
}

static uint8_t *put_text(uint8_t *at, const char *text) { return put(put_length(at, strlen(text)), text, strlen(text)); }

/* A tree as XGBoost writes it, of any numbers. */
static uint8_t *put_tree(uint8_t *at, uint32_t number, uint32_t n_nodes) {
    static const char FIELDS[][18] = {"dbase_weights", "Udefault_left", "lleft_children", "dloss_changes", "lparents",
                                      "lright_children", "dsplit_conditions", "lsplit_indices", "Usplit_type", "dsum_hessian",
                                      "lcategories", "Lcategories_sizes"};
    static const char PARAMETERS[][17] = {"num_nodes", "num_feature", "num_deleted", "size_leaf_vector"};
    char count[12];
    *at++ = '{';
    for (uint32_t field = 0; field < 12; field++) {
        const uint32_t n_items = field < 10 ? n_nodes : 0;
        at = put_text(at, FIELDS[field] + 1);
        at = put(at, "[$", 2), *at++ = (uint8_t)FIELDS[field][0], *at++ = '#';
        at = put_length(at, n_items);
        for (uint32_t byte = 0; byte < n_items * (*FIELDS[field] == 'U' ? 1 : 4); byte++) *at++ = (uint8_t)below(2);
    }
    at = put_text(at, "id"), *at++ = 'i', *at++ = (uint8_t)number;
    at = put_text(at, "tree_param"), *at++ = '{';
    for (int name = 0; name < 4; name++) {
        sprintf(count, "%u", name ? name == 3 : n_nodes);
        at = put_text(at, PARAMETERS[name]), *at++ = 'S', at = put_text(at, count);
    }
    at = put(at, "}}", 2);
    return at;
}

/* In blocks of exactly the size that is asked for. */
static void check_and_pack(const int64_t *sizes, int64_t n_trees, void *const columns[10]) {
    int64_t *starts = malloc(sizeof *starts * (size_t)(n_trees + 1)), most = 0;
    starts[0] = 0;
    for (int64_t tree = 0; tree < n_trees; tree++) {
        starts[tree + 1] = starts[tree] + sizes[tree];
        if (sizes[tree] > most) most = sizes[tree];
    }
    uint16_t *depths = calloc((size_t)most, sizeof *depths);
    uint8_t *nodes = malloc(8 * (size_t)starts[n_trees]);
    if (trees_are_sound(starts, n_trees, 1 + below(40), 5 + (int)below(10), columns[2], columns[5], columns[4], columns[7], columns[6],
                        columns[1], columns[8], depths))
        trees_pack(starts, n_trees, 1 + (int)below(22), columns[2], columns[7], columns[6], columns[1], nodes);
    free(nodes), free(depths), free(starts);
}

static int read_trees(void) {
    static uint8_t made[8 << 10];
    const uint32_t n_trees = 1 + below(4);
    uint8_t *end = made;
    for (uint32_t number = 0; number < n_trees; number++) end = put_tree(end, number, 1 + below(12));
    uint32_t n_bytes = (uint32_t)(end - made);
    for (uint32_t change = below(3); change > 0; change--) {
        uint8_t *at = made + below(n_bytes);
        switch (below(3)) {
        case 0: *at ^= (uint8_t)(1u << below(8)); break;
        case 1: *at = (uint8_t)"[]{}#$LlSdUiI01"[below(15)]; break;
        default: *at = (uint8_t)draw();
        }
    }
    if (!below(8)) n_bytes = below(n_bytes + 1);
    const int64_t max_nodes = below(4) ? n_bytes / 34 : below(10);
    uint8_t *data = malloc(n_bytes + !n_bytes);
    memcpy(data, made, n_bytes);
    int64_t *sizes = malloc(sizeof *sizes * n_trees);
    void *columns[10];
    for (int column = 0; column < 10; column++) columns[column] = malloc((column == 7 ? 8 : column == 1 || column == 8 ? 1 : 4) * (size_t)max_nodes + 1);
    const int64_t ends = trees_read(data, n_bytes, 0, n_trees, max_nodes, sizes, columns);
    if (ends > 0) check_and_pack(sizes, n_trees, columns);
    for (int column = 0; column < 10; column++) free(columns[column]);
    free(sizes), free(data);
    return ends > 0;
}

/* Any bytes in room for the longest they may become, any number, and a second against the C library's own calendar. */
static void write_json(void) {
    const uint32_t n_bytes = below(50);
    char *bytes = malloc(n_bytes + 1), *text = malloc(JSON_QUOTES + JSON_PER_BYTE * n_bytes);
    for (uint32_t at = 0; at < n_bytes; at++) bytes[at] = (char)draw();
    json_text(text, bytes, n_bytes);
    free(text);
    text = malloc(JSON_QUOTES + 4 * ((n_bytes + 2) / 3));
    json_base64(text, bytes, n_bytes);
    free(text), free(bytes);
    char number[DECIMAL_BYTES + 1] = {0}, second[SECOND_BYTES + 1] = {0}, expected[SECOND_BYTES + 1];
    const uint64_t value = draw() >> below(64);
    json_decimal(number, value);
    if (strtoull(number, NULL, 10) != value) printf("%s is not %" PRIu64 "\n", number, value), exit(1);
    const time_t at = (time_t)(draw() % 253402300800);
    struct tm calendar;
    json_second(second, at);
    strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &calendar));
    if (strcmp(second, expected)) printf("%s is not %s\n", second, expected), exit(1);
}

static void sum_one(void) {
    const uint32_t n_bytes = below(200);
    uint8_t *const data = malloc(n_bytes ? n_bytes : 1);
    for (uint32_t at = 0; at < n_bytes; at++) data[at] = (uint8_t)draw();
    const uint64_t seed = draw(), found = checksum(data, n_bytes, seed);
    const uint32_t changed = n_bytes ? below(n_bytes) : 0;
    data[changed] ^= 1;
    if (n_bytes && checksum(data, n_bytes, seed) == found) abort();
    free(data);
}

int main(int argc, char **argv) {
    const double seconds = argc > 1 ? atof(argv[1]) : 600;
    state = argc > 2 ? strtoull(argv[2], 0, 10) | 1 : (uint64_t)time(0) << 1 | 1;
    printf("seed      %" PRIu64 "\n", state);
    const time_t ends = time(0) + (time_t)seconds;
    uint64_t n_documents = 0, n_taken = 0, n_forests = 0, n_sound = 0, n_texts = 0, n_read = 0;
    do {
        for (int round = 0; round < 1000; round++) {
            n_forests++, n_sound += (uint64_t)walk_one();
            order_some();
            n_texts++, n_read += (uint64_t)read_one(), cut_one();
            n_texts++, n_read += (uint64_t)read_libsvm();
            n_documents++, n_taken += (uint64_t)read_trees();
            read_text_back();
            write_json();
            sum_one();
        }
    } while (time(0) < ends);
    printf("forests   %" PRIu64 ", %" PRIu64 " of them sound and walked\nbodies    %" PRIu64 " scored\ndocuments %" PRIu64 ", %" PRIu64 " of them read\ntexts     %" PRIu64 ", %" PRIu64 " of them read\n",
           n_forests, n_sound, n_scored, n_documents, n_taken, n_texts, n_read);
    return n_sound && n_scored && n_taken && n_read ? 0 : 1;
}
