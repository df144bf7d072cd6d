/* line.c, as row.c and the sanitizers call it. */

#pragma once

#include <stdint.h>

enum { TEXT_BYTES = 32, NO_TEXT = 0 };

/* A float's text, in room for TEXT_BYTES; its length, or NO_TEXT. */
int line_text(float value, char *text);

/* The text of the score of the one line in a body, in room for TEXT_BYTES; its length, or NO_TEXT. packed: a forest of one group
 * and one output, as packed.py made it. */
int line_score(const void *packed, int64_t n_features, uint32_t n_trees, const char *body, int64_t n_body, char *text);
