/* What reads rows of numbers: numbers.c from CSV, jsonrows.c from JSON, libsvm.c from libsvm. */

#pragma once

#include <stdint.h>

enum { DECLINED = -1, NUMBER_NS = 12, DIGIT_NS = 4 /* to read one, about; and a byte of one in CSV */ };

static inline int is_digit(char c) { return c >= '0' && c <= '9'; }

/* The number at *at, which is moved behind it; 0 when there is none, or a float cannot hold it. The text ends with a byte that is
 * part of no number. */
int number_read(const char **at, float *out);

/* text: n_bytes, and a line end behind them that does not count. out: room for max_cells. Returns the number of rows, each of
 * n_columns, or DECLINED. An empty cell, nan and null are NaN. */
int64_t numbers_read(const char *text, int64_t n_bytes, int64_t n_columns, float *out, int64_t max_cells);

/* The same of text[start:end]. */
int64_t numbers_between(const char *text, int64_t start, int64_t end, int64_t n_columns, float *out, int64_t max_cells);

/* text: n_bytes, and a zero behind them. is_lines: a row a line, and no envelope. out: room for max_cells. Returns the number of
 * rows, each of n_columns, or DECLINED. null is NaN. */
int64_t jsonrows_read(const char *text, int64_t n_bytes, int is_lines, int64_t n_columns, float *out, int64_t max_cells);

/* text[start:end]: lines, the last of them not empty, and behind them a byte that is part of no number. rows: room for max_rows of
 * n_features, all of them NaN. Reads lines as far as they are ordinary, returns how many, and says where it stopped: where the first
 * of the others begins, or at the end. */
int64_t libsvm_read(const char *text, int64_t start, int64_t end, int64_t n_features, int64_t index_base, float *rows,
                    int64_t max_rows, int64_t *stopped);
