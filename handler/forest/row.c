/* brief.c and the walker as a module of Python's: a call through ctypes costs a microsecond.
 *
 * Rule: what has no text is None. The interpreter lock is held, for letting go of it costs more than the work, unless the walk
 * or the answer is long.
 *
 * Limited API, so that one library serves every CPython from 3.11 on.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../offer.h"
#include "brief.h"

/* Rows times trees: about 20 us, as in walker.py, where rows are walked, and where so many are scored in bulk. From MOST_WALKS on
 * other cores may help, which the longer way knows of. */
enum { BRIEF_WALKS = 1000, BRIEF_IN_BULK = 4000, FEWEST_IN_BULK = 24, MOST_WALKS = 200000 };
enum { MOST_AROUND_BYTES = 64, MOST_WRITTEN = 1 << 28, COPIED_BYTES = 1 << 16 };

void forest_predict(const void *forest, const float *rows, int64_t n_rows, uint32_t n_trees, int is_margin, float *out);

/* float_text(bits) -> bytes or None, for tests */
static PyObject *float_text(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 1) return PyErr_Format(PyExc_TypeError, "float_text takes the bits of a float32");
    const uint32_t bits = (uint32_t)PyLong_AsUnsignedLong(args[0]);
    if (PyErr_Occurred()) return NULL;
    float value;
    memcpy(&value, &bits, sizeof value);
    char text[TEXT_BYTES];
    const int n = brief_text(value, text);
    if (n != NO_TEXT) return PyBytes_FromStringAndSize(text, n);
    Py_RETURN_NONE;
}

static int takes_around(PyObject *const args[3], around_t *around) {
    Py_ssize_t n_head, n_between, n_tail;
    char *head, *between, *tail;
    if (PyBytes_AsStringAndSize(args[0], &head, &n_head) < 0 || PyBytes_AsStringAndSize(args[1], &between, &n_between) < 0 ||
        PyBytes_AsStringAndSize(args[2], &tail, &n_tail) < 0)
        return 0;
    if (n_head + n_between + n_tail > MOST_AROUND_BYTES) return PyErr_SetString(PyExc_ValueError, "too long around scores"), 0;
    *around = (around_t){head, between, tail, n_head, n_between, n_tail};
    return 1;
}

/* score_brief(packed, n_features, n_trees, form, body, head, between, tail) -> bytes or None */
static PyObject *score_brief(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 8) return PyErr_Format(PyExc_TypeError, "score_brief takes a forest, a form, a body, and what is around scores");
    char *packed, *body;
    Py_ssize_t n_packed, n_body;
    around_t around;
    if (PyBytes_AsStringAndSize(args[0], &packed, &n_packed) < 0) return NULL;
    const long n_features = PyLong_AsLong(args[1]), n_trees = PyLong_AsLong(args[2]), form = PyLong_AsLong(args[3]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[4], &body, &n_body) < 0 || !takes_around(args + 5, &around)) return NULL;
    float rows[BRIEF_CELLS], scores[BRIEF_ROWS];
    const int64_t n_rows = brief_rows((form_t)form, body, n_body, n_features, rows), n_walks = n_rows * n_trees;
    if (n_rows == NO_TEXT || n_walks >= MOST_WALKS) Py_RETURN_NONE;
    const int is_long = n_walks > (n_rows < FEWEST_IN_BULK ? BRIEF_WALKS : BRIEF_IN_BULK);
    PyThreadState *const state = is_long ? PyEval_SaveThread() : NULL;
    forest_predict(packed, rows, n_rows, (uint32_t)n_trees, 0, scores);
    if (state) PyEval_RestoreThread(state);
    char text[BRIEF_ROWS * (TEXT_BYTES + MOST_AROUND_BYTES) + MOST_AROUND_BYTES];
    const int64_t n = brief_answer(scores, n_rows, &around, text);
    if (n != NO_TEXT) return PyBytes_FromStringAndSize(text, (Py_ssize_t)n);
    Py_RETURN_NONE;
}

/* write_scores(scores, n_rows, head, between, tail) -> bytes or None, `scores` being the address of so many float32. The lock is
 * held for nothing that takes long: a copy of 20 MB keeps everybody for 10 ms. */
static PyObject *write_scores(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 5) return PyErr_Format(PyExc_TypeError, "write_scores takes scores, how many, and what is around them");
    const float *scores = PyLong_AsVoidPtr(args[0]);
    const Py_ssize_t n_rows = PyLong_AsSsize_t(args[1]);
    around_t around;
    if (PyErr_Occurred() || !takes_around(args + 2, &around)) return NULL;
    if (n_rows < 1 || n_rows > MOST_WRITTEN) return PyErr_Format(PyExc_ValueError, "%zd scores", n_rows);
    PyThreadState *state = PyEval_SaveThread();
    char *const room = malloc((size_t)(around.n_head + n_rows * (TEXT_BYTES + around.n_between) + around.n_tail));
    const int has_room = room != NULL;
    const int64_t n = has_room ? brief_answer(scores, n_rows, &around, room) : NO_TEXT;
    PyEval_RestoreThread(state);
    PyObject *const text = n == NO_TEXT ? NULL : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    char *const at = text ? PyBytes_AsString(text) : NULL;
    state = PyEval_SaveThread();
    for (int64_t copied = 0, done = 0; at && copied < n; copied += COPIED_BYTES) {
        memcpy(at + copied, room + copied, (size_t)(n - copied < COPIED_BYTES ? n - copied : COPIED_BYTES));
        offer_core(&done, COPIED_BYTES); /* a ns a byte where memory is new */
    }
    free(room);
    PyEval_RestoreThread(state);
    if (text || PyErr_Occurred()) return text;
    if (!has_room) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"score_brief", (PyCFunction)(void (*)(void))score_brief, METH_FASTCALL, NULL},
    {"write_scores", (PyCFunction)(void (*)(void))write_scores, METH_FASTCALL, NULL},
    {"float_text", (PyCFunction)(void (*)(void))float_text, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "row", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_row(void) { return PyModule_Create(&module); }
