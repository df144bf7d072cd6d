/* Reads lines of comma-separated numbers.
 *
 * Rule: what is anything else than ordinary is declined, and Python reads it, or says what is wrong with it and where. What is
 * read is the double nearest to the text, rounded to a float, as everywhere else in this package.
 */

#define _GNU_SOURCE
#include "numbers.h"
#include "../offer.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_EXACT_POWER = 22, MAX_CELL_BYTES = 512 /* as in numbers.py */ };
static const uint64_t MAX_EXACT = (uint64_t)1 << 53;
static const double POWERS[MAX_EXACT_POWER + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static locale_t plain; /* whatever locale somebody's hook has set for the process */

__attribute__((constructor)) static void make_locale(void) { plain = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

int number_read(const char **at, float *out) {
    const char *start = *at, *c = start;
    const int is_negative = *c == '-';
    if (is_negative || *c == '+') c++;
    uint64_t digits = 0;
    int n_digits = 0, exponent = 0, is_long = 0;
    for (; is_digit(*c); c++, n_digits++) {
        is_long |= digits >= MAX_EXACT / 10;
        digits = digits * 10 + (uint64_t)(*c - '0');
    }
    if (*c == '.')
        for (c++; is_digit(*c); c++, n_digits++, exponent--) {
            is_long |= digits >= MAX_EXACT / 10;
            digits = digits * 10 + (uint64_t)(*c - '0');
        }
    if (!n_digits) return 0;
    if (*c == 'e' || *c == 'E') {
        c++;
        const int is_small = *c == '-';
        if (is_small || *c == '+') c++;
        if (!is_digit(*c)) return 0;
        int stated = 0;
        for (; is_digit(*c); c++) stated = stated < 10000 ? stated * 10 + (*c - '0') : stated;
        exponent += is_small ? -stated : stated;
    }
    if (c - start > MAX_CELL_BYTES) return 0;
    double value;
    if (!is_long && exponent <= MAX_EXACT_POWER && exponent >= -MAX_EXACT_POWER) {
        /* both are exact in a double, so one rounding gives the nearest (Clinger, 1990) */
        value = exponent < 0 ? (double)digits / POWERS[-exponent] : (double)digits * POWERS[exponent];
        value = is_negative ? -value : value;
    } else {
        char *end;
        value = strtod_l(start, &end, plain);
        if (end != c) return 0;
    }
    *out = (float)value;
    *at = c;
    return isfinite(*out);
}

static int is_nan_word(const char *c) {
    return (c[0] | 32) == 'n' && (c[1] | 32) == 'a' && (c[2] | 32) == 'n';
}

static int is_null_word(const char *c) {
    return (c[0] | 32) == 'n' && (c[1] | 32) == 'u' && (c[2] | 32) == 'l' && (c[3] | 32) == 'l';
}

int64_t numbers_read(const char *text, int64_t n_bytes, int64_t n_columns, float *out, int64_t max_cells) {
    const char *at = text, *end = text + n_bytes;
    int64_t n_cells = 0, column = 0, done = 0;
    for (;;) {
        if (n_cells == max_cells) return DECLINED;
        const char *const cell = at;
        if (*at == ',' || *at == '\n')
            out[n_cells] = n_columns > 1 ? NAN : INFINITY; /* alone on its line, nothing may be a missing line as well */
        else if (is_digit(*at) || *at == '-' || *at == '.' || *at == '+') {
            if (!number_read(&at, &out[n_cells])) return DECLINED;
        } else if (end - at >= 3 && is_nan_word(at)) {
            out[n_cells] = NAN;
            at += 3;
        } else if (end - at >= 4 && is_null_word(at)) {
            out[n_cells] = NAN;
            at += 4;
        } else
            return DECLINED;
        if (isinf(out[n_cells])) return DECLINED;
        offer_core(&done, (at + 1 - cell) * DIGIT_NS);
        n_cells++;
        column++;
        if (*at == ',' && at < end) {
            if (column == n_columns) return DECLINED;
        } else if (*at == '\n') {
            if (column != n_columns) return DECLINED;
            column = 0;
            if (at == end) return n_cells / n_columns;
        } else
            return DECLINED;
        at++;
    }
}

int64_t numbers_between(const char *text, int64_t start, int64_t end, int64_t n_columns, float *out, int64_t max_cells) {
    return numbers_read(text + start, end - start, n_columns, out, max_cells);
}
