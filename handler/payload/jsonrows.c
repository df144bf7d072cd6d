/* Reads rows of numbers in JSON: [1, 2], {"features": [1, 2]}, an array of either, that in {"instances": ...}; or either on a line.
 *
 * Rule: what is anything else than ordinary is declined, and Python reads it, or says what is wrong with it and where: other and
 * doubled names, strings and booleans, rows of two kinds, whatever is no JSON. What is read is what orjson and numpy make of it.
 */

#include "numbers.h"
#include "../offer.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

typedef struct {
    int64_t n_columns;
    int is_lines;
} shape_t;

static inline int is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static inline const char *past_blanks(const char *at, int is_lines) {
    while (is_blank(*at) && !(is_lines && *at == '\n')) at++;
    return at;
}

/* Behind a mark, and the blanks around it; NULL where there is another. */
static inline const char *past(const char *at, char mark, int is_lines) {
    at = past_blanks(at, is_lines);
    return *at == mark ? past_blanks(at + 1, is_lines) : NULL;
}

/* Behind {"name": and the blanks around its parts; NULL where there is something else. */
static const char *past_name(const char *at, const char *name, int is_lines) {
    const size_t n_bytes = strlen(name);
    at = past(at, '{', is_lines);
    return at && !strncmp(at, name, n_bytes) ? past(at + n_bytes, ':', is_lines) : NULL;
}

/* As of number_read, of what JSON calls a number. */
static inline const char *past_cell(const char *at, float *out) {
    if (*at == 'n') {
        *out = NAN;
        return strncmp(at, "null", 4) ? NULL : at + 4;
    }
    const char *c = at + (*at == '-');
    if (!is_digit(*c) || (*c == '0' && is_digit(c[1]))) return NULL;
    while (is_digit(*c)) c++;
    if (*c == '.' && !is_digit(c[1])) return NULL;
    const int is_whole = *c != '.' && (*c | 32) != 'e';
    if (!number_read(&at, out)) return NULL;
    if (is_whole && *out == 0) *out = 0; /* -0 is a whole number, and has no sign */
    return at;
}

static const char *past_array(const char *at, shape_t shape, float *out) {
    at = past(at, '[', shape.is_lines);
    for (int64_t column = 0; at; at = past(at, ',', shape.is_lines)) {
        if (column == shape.n_columns || !(at = past_cell(at, out + column++))) return NULL;
        const char *const end = past(at, ']', shape.is_lines);
        if (end) return column == shape.n_columns ? end : NULL;
    }
    return NULL;
}

static const char *past_row(const char *at, shape_t shape, float *out) {
    if (*at != '{') return past_array(at, shape, out);
    at = past_name(at, "\"features\"", shape.is_lines);
    at = at ? past_array(at, shape, out) : NULL;
    return at ? past(at, '}', shape.is_lines) : NULL;
}

/* Rows up to an end: a bracket, or that of the text. All are of the kind of the first. */
static int64_t rows_up_to(const char **at, const char *end, char between, shape_t shape, float *out, int64_t max_cells) {
    const char kind = **at;
    int64_t done = 0;
    for (int64_t n_rows = 0;; offer_core(&done, shape.n_columns * NUMBER_NS)) {
        if ((n_rows + 1) * shape.n_columns > max_cells || **at != kind) return DECLINED;
        if (!(*at = past_row(*at, shape, out + n_rows++ * shape.n_columns))) return DECLINED;
        if (end ? *at >= end : **at == ']') return n_rows;
        if (!(*at = past(*at, between, shape.is_lines))) return DECLINED;
    }
}

static int64_t read_lines(const char *at, const char *end, shape_t shape, float *out, int64_t max_cells) {
    at = past_blanks(at, 0);
    while (end > at && is_blank(end[-1])) end--;
    return rows_up_to(&at, end, '\n', shape, out, max_cells);
}

int64_t jsonrows_read(const char *text, int64_t n_bytes, int is_lines, int64_t n_columns, float *out, int64_t max_cells) {
    const char *const end = text + n_bytes, *at = past_blanks(text, 0);
    const shape_t shape = {n_columns, is_lines};
    if (is_lines) return read_lines(text, end, shape, out, max_cells);
    const char *const inside = past_name(at, "\"instances\"", 0);
    const char *const items = past(inside ? inside : at, '[', 0);
    int64_t n_rows = 1;
    if (items && (*items == '[' || *items == '{')) {
        at = items;
        n_rows = rows_up_to(&at, NULL, ',', shape, out, max_cells);
        at = n_rows == DECLINED ? NULL : past(at, ']', 0);
    } else
        at = inside || n_columns > max_cells ? NULL : past_row(at, shape, out);
    if (at && inside) at = past(at, '}', 0);
    return at == end ? n_rows : DECLINED;
}
