/* line.c as a module of Python's: a call through ctypes costs a microsecond.
 *
 * Rule: what is no text is None. The interpreter lock is held: letting go of it costs more than the work.
 *
 * Limited API, so that one library serves every CPython from 3.11 on.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "line.h"

/* float_text(bits) -> bytes or None, for tests */
static PyObject *float_text(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 1) return PyErr_Format(PyExc_TypeError, "float_text takes the bits of a float32");
    const uint32_t bits = (uint32_t)PyLong_AsUnsignedLong(args[0]);
    if (PyErr_Occurred()) return NULL;
    float value;
    memcpy(&value, &bits, sizeof value);
    char text[TEXT_BYTES];
    const int n = line_text(value, text);
    if (n != NO_TEXT) return PyBytes_FromStringAndSize(text, n);
    Py_RETURN_NONE;
}

/* score_line(packed, n_features, n_trees, body) -> bytes or None */
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
    char text[TEXT_BYTES];
    const int n = line_score(packed, n_features, (uint32_t)n_trees, body, n_body, text);
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
