/* Cuts the array of a JSON text into pieces of whole items.
 *
 * Rule: nothing here says that a text is JSON. Whoever parses the pieces finds out, and they are JSON exactly when the array is.
 */

#include <stdint.h>

#include "../offer.h"

/* The array's items begin at `start`. Each cut is where a comma stands behind an item at least piece_bytes behind the cut before,
 * and the last one where the array's bracket is closed, or n_bytes when it is not. Returns how many cuts there are, at most
 * max_cuts; or, negative, the number of the first item, from one, with more than max_commas in it. */
int64_t array_cut(const char *text, int64_t n_bytes, int64_t start, int64_t piece_bytes, int64_t max_commas, int64_t *cuts,
                  int64_t max_cuts) {
    int64_t n_cuts = 0, last = start, depth = 1, n_items = 1, n_commas = 0, at = start;
    int64_t done = 0, offered_at = start; /* a byte takes about a ns */
    for (; at < n_bytes; at++) switch (text[at]) {
        case '"':
            for (at++; at < n_bytes && text[at] != '"'; at++) {
                at += text[at] == '\\';
                if (at - offered_at < OFFER_NS) continue;
                offer_core(&done, at - offered_at);
                offered_at = at;
            }
            break;
        case '[':
        case '{':
            depth++;
            break;
        case ']':
        case '}':
            if (!--depth) goto closed;
            break;
        case ',':
            offer_core(&done, at - offered_at);
            offered_at = at;
            if (depth > 1) {
                if (++n_commas > max_commas) return -n_items;
                break;
            }
            n_items++;
            n_commas = 0;
            if (at - last >= piece_bytes && n_cuts < max_cuts - 1) cuts[n_cuts++] = last = at;
            break;
        }
    at = n_bytes; /* an escape may have gone beyond */
closed:
    if (n_cuts < max_cuts) cuts[n_cuts++] = at;
    return n_cuts;
}
