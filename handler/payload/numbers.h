/* What reads rows of numbers: numbers.c from CSV, jsonrows.c from JSON. */

#pragma once

#include <stdint.h>

enum { DECLINED = -1 };

static inline int is_digit(char c) { return c >= '0' && c <= '9'; }

/* The number at *at, which is moved behind it; 0 when there is none, or a float cannot hold it. The text ends with a byte that is
 * part of no number. */
int number_read(const char **at, float *out);

/* text: n_bytes, and a line end behind them that does not count. out: room for max_cells. Returns the number of rows, each of
 * n_columns, or DECLINED. An empty cell, nan and null are NaN. */
int64_t numbers_read(const char *text, int64_t n_bytes, int64_t n_columns, float *out, int64_t max_cells);

/* text: n_bytes, and a zero behind them. is_lines: a row a line, and no envelope. out: room for max_cells. Returns the number of
 * rows, each of n_columns, or DECLINED. null is NaN. */
int64_t jsonrows_read(const char *text, int64_t n_bytes, int is_lines, int64_t n_columns, float *out, int64_t max_cells);
