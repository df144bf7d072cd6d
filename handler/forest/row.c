/* One line of CSV to the text of its score, in one call: what a warm request mostly asks.
 *
 * Rule: only what is ordinary is answered, and to the byte as the longer way answers it (payload/encode.py, whose text is
 * orjson's). All else is None, and goes that way. The interpreter lock is held: letting go of it costs more than the work.
 *
 * Limited API, so that one library serves every CPython from 3.11 on.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

void forest_predict(const void *forest, const float *rows, int64_t n_rows, uint32_t n_trees, int is_margin, float *out);
int64_t numbers_read(const char *text, int64_t n_bytes, int64_t n_columns, float *out, int64_t max_cells);

enum { MAX_LINE_BYTES = 8192, MAX_FEATURES = 1024, TEXT_BYTES = 32, NO_TEXT = 0 };
enum { MANTISSA_BITS = 23, EXPONENT_BIAS = 127, MAX_DECIMALS = 13, LEAST_EXPONENT = -13, MOST_EXPONENT = 23 };

/* The shortest decimal that reads back as the same float32, the nearest of several, with a point and a digit behind it; its
 * length. NO_TEXT for what orjson may write with an exponent, and for powers of two, whose neighbours are not equally far.
 *
 * A float is m x 2^-s. With k decimals it is n / 10^k, and that reads back when n x 2^s lies within half a step of m x 10^k:
 * whole numbers below 2^70, so nothing is rounded here. */
static int text_of(float value, char *text) {
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

/* float_text(bits) -> bytes or None, for tests */
static PyObject *float_text(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 1) return PyErr_Format(PyExc_TypeError, "float_text takes the bits of a float32");
    const uint32_t bits = (uint32_t)PyLong_AsUnsignedLong(args[0]);
    if (PyErr_Occurred()) return NULL;
    float value;
    memcpy(&value, &bits, sizeof value);
    char text[TEXT_BYTES];
    const int n = text_of(value, text);
    if (n != NO_TEXT) return PyBytes_FromStringAndSize(text, n);
    Py_RETURN_NONE;
}

/* score_line(packed, n_features, n_trees, body) -> bytes or None. packed: a forest of one group and one output, as packed.py
 * made it. */
static PyObject *score_line(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 4) return PyErr_Format(PyExc_TypeError, "score_line takes packed, n_features, n_trees and body");
    char *packed, *body;
    Py_ssize_t n_packed, n_body;
    if (PyBytes_AsStringAndSize(args[0], &packed, &n_packed) < 0) return NULL;
    const long n_features = PyLong_AsLong(args[1]);
    if (n_features == -1 && PyErr_Occurred()) return NULL;
    const long n_trees = PyLong_AsLong(args[2]);
    if (n_trees == -1 && PyErr_Occurred()) return NULL;
    if (PyBytes_AsStringAndSize(args[3], &body, &n_body) < 0) return NULL;
    while (n_body && (body[n_body - 1] == '\n' || body[n_body - 1] == '\r')) n_body--;
    if (!n_body || n_body > MAX_LINE_BYTES || n_features < 1 || n_features > MAX_FEATURES) Py_RETURN_NONE;
    char line[MAX_LINE_BYTES + 1];
    memcpy(line, body, (size_t)n_body);
    line[n_body] = '\n';
    float row[MAX_FEATURES], score;
    if (numbers_read(line, n_body, n_features, row, n_features) != 1) Py_RETURN_NONE;
    forest_predict(packed, row, 1, (uint32_t)n_trees, 0, &score);
    char text[TEXT_BYTES];
    const int n = text_of(score, text);
    if (n != NO_TEXT) return PyBytes_FromStringAndSize(text, n);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"score_line", (PyCFunction)(void (*)(void))score_line, METH_FASTCALL, NULL},
    {"float_text", (PyCFunction)(void (*)(void))float_text, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "row", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_row(void) { return PyModule_Create(&module); }
