/* Where UBJSON is read. Rule: no byte is looked at before it is known to be there. */

#ifndef HANDLER_IMPORTER_CURSOR_H
#define HANDLER_IMPORTER_CURSOR_H

#include <stdint.h>

enum { DECLINED = -1 };

/* at: the next byte; end: behind the last. */
typedef struct {
    const uint8_t *at, *end;
} cursor_t;

typedef struct {
    const uint8_t *at;
    int64_t n_bytes;
} text_t;

static inline int64_t n_left(const cursor_t *cursor) { return cursor->end - cursor->at; }

static inline int64_t big_endian(const uint8_t *bytes, int n_bytes) {
    uint64_t value = bytes[0] & 128 ? ~(uint64_t)0 : 0;
    for (int at = 0; at < n_bytes; at++) value = value << 8 | bytes[at];
    return (int64_t)value;
}

/* A length of items of so many bytes, all of which are there; DECLINED where they are not. */
static inline int64_t take_length(cursor_t *cursor, int item_bytes) {
    if (n_left(cursor) < 9 || *cursor->at != 'L') return DECLINED;
    const int64_t n = big_endian(cursor->at + 1, 8);
    cursor->at += 9;
    return n < 0 || n > n_left(cursor) / item_bytes ? DECLINED : n;
}

/* A string, or a key, which is one without its marker. */
static inline int take_text(cursor_t *cursor, text_t *text) {
    text->n_bytes = take_length(cursor, 1);
    if (text->n_bytes < 0) return 0;
    text->at = cursor->at;
    cursor->at += text->n_bytes;
    return 1;
}

#endif
