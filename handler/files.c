/* Long files read and written, a piece at a time, as a module of Python's. One read of 24 MB keeps its core for 5 ms and more, and
 * who waits for that core waits for it; in pieces from Python, each lets go of the interpreter lock and asks for it again.
 *
 * Limited API, as row.c.
 */

#define _POSIX_C_SOURCE 200809L
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "offer.h"

/* A piece, and how long it takes to copy it from or to the kernel's pages, about. */
enum { PIECE_BYTES = 1 << 16, PIECE_NS = 50000 };

/* How many bytes there were, fewer than n_bytes at the end of the file; -1 with errno. */
static Py_ssize_t read_pieces(int descriptor, char *to, Py_ssize_t n_bytes) {
    Py_ssize_t n_read = 0;
    for (int64_t done = 0; n_read < n_bytes; offer_core(&done, PIECE_NS)) {
        const Py_ssize_t left = n_bytes - n_read;
        const ssize_t n = read(descriptor, to + n_read, (size_t)(left < PIECE_BYTES ? left : PIECE_BYTES));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (!n) break;
        n_read += n;
    }
    return n_read;
}

/* False with errno. */
static int write_pieces(int descriptor, const char *from, Py_ssize_t n_bytes) {
    for (int64_t done = 0; n_bytes; offer_core(&done, PIECE_NS)) {
        const ssize_t n = write(descriptor, from, (size_t)(n_bytes < PIECE_BYTES ? n_bytes : PIECE_BYTES));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            errno = n ? errno : EIO;
            return 0;
        }
        from += n;
        n_bytes -= n;
    }
    return 1;
}

/* -1 where it is none, with an exception or without. */
static int descriptor_of(PyObject *number) {
    const long descriptor = PyLong_AsLong(number);
    return descriptor < 0 || descriptor > INT_MAX ? -1 : (int)descriptor;
}

/* read(descriptor, n_bytes) -> bytes, or None where there are fewer; raises OSError */
static PyObject *read_file(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 2) return PyErr_Format(PyExc_TypeError, "read takes a descriptor and how many bytes");
    const int descriptor = descriptor_of(args[0]);
    if (PyErr_Occurred()) return NULL;
    const Py_ssize_t n_bytes = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (n_bytes < 0) return PyErr_Format(PyExc_ValueError, "%zd bytes", n_bytes);
    PyObject *const found = PyBytes_FromStringAndSize(NULL, n_bytes);
    char *const room = found ? PyBytes_AsString(found) : NULL;
    if (!room) return NULL;
    PyThreadState *const state = PyEval_SaveThread();
    const Py_ssize_t n_read = read_pieces(descriptor, room, n_bytes);
    PyEval_RestoreThread(state);
    if (n_read == n_bytes) return found;
    if (n_read < 0) PyErr_SetFromErrno(PyExc_OSError);
    Py_DecRef(found);
    if (n_read < 0) return NULL;
    Py_RETURN_NONE;
}

/* write(descriptor, bytes) -> None; raises OSError, some of them written then */
static PyObject *write_file(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 2) return PyErr_Format(PyExc_TypeError, "write takes a descriptor and bytes");
    const int descriptor = descriptor_of(args[0]);
    char *from;
    Py_ssize_t n_bytes;
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[1], &from, &n_bytes) < 0) return NULL;
    PyThreadState *const state = PyEval_SaveThread();
    const int is_done = write_pieces(descriptor, from, n_bytes);
    PyEval_RestoreThread(state);
    if (!is_done) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"read", (PyCFunction)(void (*)(void))read_file, METH_FASTCALL, NULL},
    {"write", (PyCFunction)(void (*)(void))write_file, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "files", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_files(void) { return PyModule_Create(&module); }
