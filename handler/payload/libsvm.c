/* Reads lines of `[label] index:value index:value ...`.
 *
 * Rule: as in numbers.c, what is anything else than ordinary is left to Python: comments, qid, blank lines, indices that do not
 * grow along their line, everything that is wrong. */

#include "numbers.h"
#include "../offer.h"

#include <math.h>
#include <stddef.h>

enum { MAX_TOKEN_BYTES = 512 /* as in numbers.py */, MAX_INDEX_DIGITS = 18, BYTE_NS = 4 /* of a line, about */ };

static int ends_token(const char *at, const char *end) {
    return at >= end || *at == ' ' || *at == '\t' || *at == '\n' || (*at == '\r' && at + 1 < end && at[1] == '\n');
}

static const char *past_spaces(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    return at;
}

/* The index at *at, which is moved behind its colon; -1 when there is none. */
static int64_t index_read(const char **at, const char *end) {
    const char *c = *at;
    int64_t index = 0;
    for (; c < end && is_digit(*c); c++) {
        if (c - *at == MAX_INDEX_DIGITS) return -1;
        index = index * 10 + (*c - '0');
    }
    if (c == *at || c >= end || *c != ':') return -1;
    *at = c + 1;
    return index;
}

static int value_read(const char **at, const char *end, float *out) {
    const char *const c = *at;
    if (end - c >= 3 && (c[0] | 32) == 'n' && (c[1] | 32) == 'a' && (c[2] | 32) == 'n') {
        *out = NAN;
        *at = c + 3;
        return 1;
    }
    return c < end && number_read(at, out);
}

/* One line into a row of NaN; where the next begins, or NULL for a line that Python is to read, whose row may have been written to. */
static const char *line_read(const char *at, const char *end, int64_t n_features, int64_t index_base, float *row) {
    int64_t last = -1;
    int is_first = 1;
    for (at = past_spaces(at, end); at < end && *at != '\n' && *at != '\r'; at = past_spaces(at, end), is_first = 0) {
        const char *const token = at;
        float label;
        const int64_t column = index_read(&at, end) - index_base;
        if (at != token) {
            if (column <= last || column >= n_features || !value_read(&at, end, row + column)) return NULL;
            last = column;
        } else if (!is_first || !number_read(&at, &label))
            return NULL;
        if (!ends_token(at, end) || at - token > MAX_TOKEN_BYTES) return NULL;
    }
    if (is_first || !ends_token(at, end)) return NULL;
    return at < end && *at == '\r' ? at + 2 : at + 1;
}

int64_t libsvm_read(const char *text, int64_t start, int64_t end, int64_t n_features, int64_t index_base, float *rows,
                    int64_t max_rows, int64_t *stopped) {
    int64_t n_rows = 0, done = 0;
    for (; start < end && n_rows < max_rows; n_rows++) {
        float *const row = rows + n_rows * n_features;
        const char *const next = line_read(text + start, text + end, n_features, index_base, row);
        if (!next) {
            for (int64_t column = 0; column < n_features; column++) row[column] = NAN;
            break;
        }
        offer_core(&done, (next - text - start) * BYTE_NS);
        start = next - text;
    }
    *stopped = start < end ? start : end;
    return n_rows;
}
