/* Texts, bytes, numbers and times as they stand in a line of JSON.
 *
 * Rule: a text is written to the byte as orjson writes it. It is valid UTF-8; its caller has seen to that.
 */

#include "json.h"

#include <string.h>

static char *put(char *to, const void *bytes, size_t n_bytes) {
    memcpy(to, bytes, n_bytes);
    return to + n_bytes;
}

/* What follows a backslash for each byte that needs one: a letter, or 'u' where there is none for it. */
static const char ESCAPES[256] = {
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', ['"'] = '"', ['\\'] = '\\'};

/* Whether a byte of the eight is `byte`, or below it: each is seen by the bit that it borrows from. */
#define EACH(byte) (0x0101010101010101u * (byte))
#define ANY_BELOW(eight, byte) (((eight) - EACH(byte)) & ~(eight) & EACH(0x80))
#define ANY_IS(eight, byte) ANY_BELOW((eight) ^ EACH(byte), 1)

static int needs_backslash(uint64_t eight) {
    return (ANY_BELOW(eight, ' ') | ANY_IS(eight, '"') | ANY_IS(eight, '\\')) != 0;
}

static char *put_escaped(char *to, uint8_t byte) {
    static const char HEX[] = "0123456789abcdef";
    *to++ = '\\';
    *to++ = ESCAPES[byte];
    if (ESCAPES[byte] == 'u') {
        to = put(to, "00", 2);
        *to++ = HEX[byte >> 4];
        *to++ = HEX[byte & 15];
    }
    return to;
}

char *json_text(char *to, const char *text, int64_t n_bytes) {
    const char *const end = text + n_bytes;
    *to++ = '"';
    while (text < end) {
        uint64_t eight;
        if (end - text >= 8 && (memcpy(&eight, text, 8), !needs_backslash(eight))) {
            to = put(to, &eight, 8);
            text += 8;
            continue;
        }
        for (const char *until = end - text > 8 ? text + 8 : end; text < until; text++) {
            const uint8_t byte = (uint8_t)*text;
            if (ESCAPES[byte]) to = put_escaped(to, byte);
            else *to++ = (char)byte;
        }
    }
    *to++ = '"';
    return to;
}

/* RFC 4648, 4 */
char *json_base64(char *to, const char *bytes, int64_t n_bytes) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    *to++ = '"';
    for (int64_t at = 0; at < n_bytes; at += 3) {
        const int n = n_bytes - at < 3 ? (int)(n_bytes - at) : 3;
        uint32_t three = 0;
        for (int byte = 0; byte < 3; byte++) three = three << 8 | (byte < n ? (uint8_t)bytes[at + byte] : 0u);
        for (int digit = 0; digit < 4; digit++) *to++ = digit > n ? '=' : DIGITS[three >> (18 - 6 * digit) & 63];
    }
    *to++ = '"';
    return to;
}

char *json_decimal(char *to, uint64_t value) {
    char digits[DECIMAL_BYTES];
    int n_digits = 0;
    do digits[n_digits++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n_digits) *to++ = digits[--n_digits];
    return to;
}

static char *put_padded(char *to, int64_t value, int n_digits) {
    for (int at = n_digits - 1; at >= 0; at--, value /= 10) to[at] = (char)('0' + value % 10);
    return to + n_digits;
}

/* `2022-02-14T17:25:06Z`, of seconds from 1970 up to the year 9999. The date is the one of "days_from_civil" by Howard
 * Hinnant, backwards: years that begin in March, in eras of 400. */
char *json_second(char *to, int64_t second) {
    const int64_t days = second / 86400 + 719468, of_day = second % 86400;
    const int64_t era = days / 146097, of_era = days % 146097;
    const int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    const int64_t of_year = of_era - (365 * years + years / 4 - years / 100);
    const int64_t from_march = (5 * of_year + 2) / 153, day = of_year - (153 * from_march + 2) / 5 + 1;
    const int64_t month = from_march < 10 ? from_march + 3 : from_march - 9;
    to = put_padded(to, years + era * 400 + (month <= 2), 4);
    *to++ = '-';
    to = put_padded(to, month, 2);
    *to++ = '-';
    to = put_padded(to, day, 2);
    *to++ = 'T';
    to = put_padded(to, of_day / 3600, 2);
    *to++ = ':';
    to = put_padded(to, of_day / 60 % 60, 2);
    *to++ = ':';
    to = put_padded(to, of_day % 60, 2);
    *to++ = 'Z';
    return to;
}
