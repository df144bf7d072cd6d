/* The rows of a short body, and the text of their scores: what a warm request mostly asks.
 *
 * Rule: only what is ordinary is read and written, and to the byte as the longer way does it (payload/encode.py, whose text is
 * orjson's). All else is NO_TEXT, and goes that way. Nothing here allocates or keeps state.
 */

#include "brief.h"

#include <string.h>

#include "../offer.h"
#include "../payload/numbers.h"

enum { MAX_FEATURES = 1024, TEXT_NS = 80 /* for a score, about */ };
enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127, MAX_DECIMALS = 13, LEAST_EXPONENT = -13, MOST_EXPONENT = 23 };

/* The shortest decimal that reads back as the same float32, the nearest of several, with a point and a digit behind it; its
 * length. NO_TEXT for what orjson may write with an exponent, and for powers of two, whose neighbours are not equally far.
 *
 * A float is m x 2^-s. With k decimals it is n / 10^k, and that reads back when n x 2^s lies within half a step of m x 10^k:
 * whole numbers below 2^70, so nothing is rounded here. */
int brief_text(float value, char *text) {
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

/* A copy with plain line ends, and one more behind the last line, which has none; its length without that. */
static int64_t plain_lines(const char *body, int64_t n_body, char *text) {
    int64_t n = n_body;
    if (!memchr(body, '\r', (size_t)n_body))
        memcpy(text, body, (size_t)n_body);
    else
        for (int64_t at = n = 0; at < n_body; at++)
            if (body[at] != '\r' || body[at + 1] != '\n') text[n++] = body[at];
    text[n] = '\n';
    return n;
}

int64_t brief_rows(form_t form, const char *body, int64_t n_body, int64_t n_features, float *rows) {
    if (n_body > BRIEF_BYTES || n_features < 1 || n_features > MAX_FEATURES) return NO_TEXT;
    const int64_t most = BRIEF_ROWS * n_features, max_cells = most < BRIEF_CELLS ? most : BRIEF_CELLS;
    int64_t n_rows;
    if (form == IN_CSV) {
        char text[BRIEF_BYTES + 1];
        while (n_body && (body[n_body - 1] == '\n' || body[n_body - 1] == '\r')) n_body--;
        n_rows = n_body ? numbers_read(text, plain_lines(body, n_body, text), n_features, rows, max_cells) : DECLINED;
    } else
        n_rows = jsonrows_read(body, n_body, form == IN_JSONLINES, n_features, rows, max_cells);
    return n_rows == DECLINED ? NO_TEXT : n_rows;
}

static char *put(char *at, const char *bytes, int64_t n_bytes) {
    memcpy(at, bytes, (size_t)n_bytes);
    return at + n_bytes;
}

int64_t brief_answer(const float *scores, int64_t n_rows, const around_t *around, char *text) {
    char *at = put(text, around->head, around->n_head);
    int64_t done = 0;
    for (int64_t row = 0; row < n_rows; row++) {
        if (row) at = put(at, around->between, around->n_between);
        const int n_bytes = brief_text(scores[row], at);
        if (n_bytes == NO_TEXT) return NO_TEXT;
        at += n_bytes;
        offer_core(&done, TEXT_NS);
    }
    return put(at, around->tail, around->n_tail) - text;
}
