/* One line of CSV to the text of its score: what a warm request mostly asks.
 *
 * Rule: only what is ordinary is answered, and to the byte as the longer way answers it (payload/encode.py, whose text is
 * orjson's). All else is NO_TEXT, and goes that way. Nothing here allocates or keeps state.
 */

#include "line.h"

#include <string.h>

void forest_predict(const void *forest, const float *rows, int64_t n_rows, uint32_t n_trees, int is_margin, float *out);
int64_t numbers_read(const char *text, int64_t n_bytes, int64_t n_columns, float *out, int64_t max_cells);

enum { MAX_LINE_BYTES = 8192, MAX_FEATURES = 1024 };
enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127, MAX_DECIMALS = 13, LEAST_EXPONENT = -13, MOST_EXPONENT = 23 };

/* The shortest decimal that reads back as the same float32, the nearest of several, with a point and a digit behind it; its
 * length. NO_TEXT for what orjson may write with an exponent, and for powers of two, whose neighbours are not equally far.
 *
 * A float is m x 2^-s. With k decimals it is n / 10^k, and that reads back when n x 2^s lies within half a step of m x 10^k:
 * whole numbers below 2^70, so nothing is rounded here. */
int line_text(float value, char *text) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t fraction = bits & ((1u << MANTISSA_BITS) - 1);
    const int exponent = (int)(bits >> MANTISSA_BITS & 255) - EXPONENT_BIAS;
    char *at = text;
    if (bits >> 31) *at++ = '-';
    if (!(bits << 1)) {
        memcpy(at, "0.0", 3);
        return (int)(at + 3 - text);
    }
    if (exponent < LEAST_EXPONENT || exponent > MOST_EXPONENT || !fraction) return NO_TEXT;
    const uint32_t m = fraction | 1u << MANTISSA_BITS;
    const int s = MANTISSA_BITS - exponent;
    uint64_t power = 1, n = 0;
    int k = 0;
    for (;; k++, power *= 10) {
        if (k > MAX_DECIMALS) return NO_TEXT;
        const unsigned __int128 exact = (unsigned __int128)m * power;
        n = (uint64_t)(exact >> s);
        const unsigned __int128 rest = exact - ((unsigned __int128)n << s), half = s ? (unsigned __int128)1 << (s - 1) : 0;
        const int is_up = rest > half || (s && rest == half && n & 1);
        n += (uint64_t)is_up;
        const unsigned __int128 apart = is_up ? ((unsigned __int128)1 << s) - rest : rest;
        if (2 * apart < power || (2 * apart == power && !(m & 1))) break;
    }
    char digits[20];
    int n_digits = 0;
    for (uint64_t left = n; left || n_digits <= k; left /= 10) digits[n_digits++] = (char)('0' + left % 10);
    while (n_digits) {
        *at++ = digits[--n_digits];
        if (n_digits == k && k) *at++ = '.';
    }
    if (!k) {
        memcpy(at, ".0", 2);
        at += 2;
    }
    return (int)(at - text);
}

int line_score(const void *packed, int64_t n_features, uint32_t n_trees, const char *body, int64_t n_body, char *text) {
    while (n_body && (body[n_body - 1] == '\n' || body[n_body - 1] == '\r')) n_body--;
    if (!n_body || n_body > MAX_LINE_BYTES || n_features < 1 || n_features > MAX_FEATURES) return NO_TEXT;
    char line[MAX_LINE_BYTES + 1];
    memcpy(line, body, (size_t)n_body);
    line[n_body] = '\n';
    float row[MAX_FEATURES], score;
    if (numbers_read(line, n_body, n_features, row, n_features) != 1) return NO_TEXT;
    forest_predict(packed, row, 1, n_trees, 0, &score);
    return line_text(score, text);
}
