/* json.c, as sheet.c and the sanitizers call it. */

#pragma once

#include <stdint.h>

/* Of what json_text and json_base64 write, at most: so many for each byte of the text, and the two quotes. */
enum { JSON_PER_BYTE = 6, JSON_QUOTES = 2, DECIMAL_BYTES = 20, SECOND_BYTES = 20 };

/* Each writes at `to` and returns where it has ended. */
char *json_text(char *to, const char *text, int64_t n_bytes);
char *json_base64(char *to, const char *bytes, int64_t n_bytes);
char *json_decimal(char *to, uint64_t value);
char *json_second(char *to, int64_t second);
