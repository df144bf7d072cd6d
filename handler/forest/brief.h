/* brief.c, as row.c and the sanitizers call it. */

#pragma once

#include <stdint.h>

enum { BRIEF_BYTES = 8192, BRIEF_CELLS = 4096, BRIEF_ROWS = 512, TEXT_BYTES = 32, NO_TEXT = 0 };

/* What a body is in. */
typedef enum { IN_CSV, IN_JSON, IN_JSONLINES } form_t;

/* What stands before the first score of an answer, between two, and behind the last. */
typedef struct {
    const char *head, *between, *tail;
    int64_t n_head, n_between, n_tail;
} around_t;

/* A float's text, in room for TEXT_BYTES; its length, or NO_TEXT. */
int brief_text(float value, char *text);

/* The rows in a body of n_body bytes, and a zero behind them, in room for BRIEF_CELLS; how many there are, at most BRIEF_ROWS, or
 * NO_TEXT. */
int64_t brief_rows(form_t form, const char *body, int64_t n_body, int64_t n_features, float *rows);

/* The scores' text, in room for what stands around them and TEXT_BYTES for each; its length, or NO_TEXT. */
int64_t brief_answer(const float *scores, int64_t n_rows, const around_t *around, char *text);
