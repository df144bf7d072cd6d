/* A booster's UBJSON read into Python values, as a module of Python's: what ubj.py does, in a fifth of the time.
 *
 * Rule: what comes out is what ubj.py would have read, value for value. All that it would refuse is declined without a word, and then
 * it reads the bytes itself and says what is wrong. So is what it reads and XGBoost never writes at the top: null.
 *
 * Limited API, as row.c. A function that answers an object answers NULL where it declines; no exception is set then.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "cursor.h"

/* As in ubj.py. */
enum { MAX_DEPTH = 24, TREES_DEPTH = 3, SEVERAL = 8, FEWEST_CONTAINERS = 1000, BYTES_PER_CONTAINER = 32 };

/* keys: one string of each. typed: makes a Typed of a tuple. trees: trees.read. */
typedef struct {
    cursor_t cursor;
    const uint8_t *begin;
    int64_t containers_left;
    PyObject *data, *keys, *typed, *trees;
} reader_t;

static PyObject *value(reader_t *reader, int depth);

/* Of a number in an array of one type; 0 where there is no such type. */
static int item_bytes(uint8_t code) {
    switch (code) {
    case 'i':
    case 'U': return 1;
    case 'I': return 2;
    case 'l':
    case 'd': return 4;
    case 'L':
    case 'D': return 8;
    default: return 0;
    }
}

static int enters(reader_t *reader, int depth) { return depth <= MAX_DEPTH && --reader->containers_left >= 0; }

static PyObject *string_of(text_t text) {
    PyObject *const found = PyUnicode_DecodeUTF8((const char *)text.at, (Py_ssize_t)text.n_bytes, NULL);
    if (!found && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) PyErr_Clear();
    return found;
}

static PyObject *key_of(reader_t *reader, text_t text) {
    PyObject *const found = string_of(text);
    if (!found) return NULL;
    PyObject *const known = PyDict_GetItemWithError(reader->keys, found);
    if (known || PyErr_Occurred() || PyDict_SetItem(reader->keys, found, found) < 0) {
        Py_DECREF(found);
        Py_XINCREF(known);
        return known;
    }
    return found;
}

/* A Typed; takes over the reference to `raw`, which may be NULL. */
static PyObject *typed_of(reader_t *reader, uint8_t code, PyObject *raw) {
    PyObject *const pair = raw ? Py_BuildValue("(iN)", (int)code, raw) : NULL;
    if (!pair) return NULL;
    PyObject *const made = PyObject_CallFunctionObjArgs(reader->typed, pair, NULL);
    Py_DECREF(pair);
    return made;
}

/* Behind "[$". */
static PyObject *typed(reader_t *reader) {
    cursor_t *const cursor = &reader->cursor;
    const uint8_t code = n_left(cursor) < 2 ? 0 : cursor->at[0];
    const int n_each = item_bytes(code);
    if (!n_each || cursor->at[1] != '#') return NULL;
    cursor->at += 2;
    const int64_t n = take_length(cursor, n_each);
    if (n < 0) return NULL;
    const char *const from = (const char *)cursor->at;
    cursor->at += n * n_each;
    return typed_of(reader, code, PyBytes_FromStringAndSize(from, (Py_ssize_t)(n * n_each)));
}

/* Whether at the cursor there are so many numbers of one type, each behind its marker. */
static int are_alike(const cursor_t *cursor, int64_t n) {
    const int n_each = n_left(cursor) ? item_bytes(*cursor->at) : 0;
    if (!n_each || n > n_left(cursor) / (1 + n_each)) return 0;
    for (int64_t item = 1; item < n; item++)
        if (cursor->at[item * (1 + n_each)] != *cursor->at) return 0;
    return 1;
}

static PyObject *alike(reader_t *reader, int64_t n) {
    cursor_t *const cursor = &reader->cursor;
    const uint8_t code = *cursor->at;
    const int n_each = item_bytes(code);
    PyObject *const raw = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(n * n_each));
    if (!raw) return NULL;
    char *const into = PyBytes_AsString(raw);
    for (int64_t item = 0; item < n; item++) memcpy(into + item * n_each, cursor->at + item * (1 + n_each) + 1, (size_t)n_each);
    cursor->at += n * (1 + n_each);
    return typed_of(reader, code, raw);
}

/* One value more at the end of a list; 0 where there is none. */
static int extends(reader_t *reader, PyObject *found, int depth) {
    PyObject *const one = value(reader, depth);
    const int is_there = one && !PyList_Append(found, one);
    Py_XDECREF(one);
    return is_there;
}

/* Behind "[". */
static PyObject *array(reader_t *reader, int depth) {
    cursor_t *const cursor = &reader->cursor;
    if (!n_left(cursor)) return NULL;
    if (*cursor->at == '$') {
        cursor->at++;
        return typed(reader);
    }
    if (!enters(reader, depth)) return NULL;
    int64_t n = DECLINED; /* unless it is counted, and has no closing bracket */
    if (*cursor->at == '#') {
        cursor->at++;
        n = take_length(cursor, 1);
        if (n < 0) return NULL;
        if (n >= SEVERAL && are_alike(cursor, n)) return alike(reader, n);
    }
    PyObject *const found = PyList_New(0);
    if (!found) return NULL;
    for (int64_t item = 0; n < 0 ? n_left(cursor) && *cursor->at != ']' : item < n; item++)
        if (!extends(reader, found, depth)) return Py_DECREF(found), NULL;
    if (n < 0) {
        if (!n_left(cursor)) return Py_DECREF(found), NULL;
        cursor->at++;
    }
    return found;
}

/* The trees at the cursor, if all of them are ordinary; else None, and the cursor stays where it is. */
static PyObject *ordinary_trees(reader_t *reader, int depth) {
    cursor_t *const cursor = &reader->cursor;
    if (n_left(cursor) < 2 || memcmp(cursor->at, "[#", 2) || depth + TREES_DEPTH > MAX_DEPTH) Py_RETURN_NONE;
    cursor_t ahead = {cursor->at + 2, cursor->end};
    const int64_t n_trees = take_length(&ahead, 1);
    if (n_trees < 0) return NULL;
    const Py_ssize_t first = ahead.at - reader->begin;
    PyObject *const answer = PyObject_CallFunction(reader->trees, "Onn", reader->data, first, (Py_ssize_t)n_trees);
    if (!answer || answer == Py_None) return answer;
    PyObject *columns;
    Py_ssize_t end;
    if (!PyArg_ParseTuple(answer, "On", &columns, &end)) return Py_DECREF(answer), NULL;
    reader->containers_left -= 1 + 2 * n_trees; /* the list; each tree and its parameters */
    if (reader->containers_left < 0 || end < first || end > reader->cursor.end - reader->begin) return Py_DECREF(answer), NULL;
    cursor->at = reader->begin + end;
    Py_INCREF(columns);
    Py_DECREF(answer);
    return columns;
}

/* What belongs to a key. */
static PyObject *field(reader_t *reader, text_t key, int depth) {
    if (key.n_bytes != 5 || memcmp(key.at, "trees", 5)) return value(reader, depth);
    PyObject *const found = ordinary_trees(reader, depth);
    if (found != Py_None) return found;
    Py_DECREF(found);
    return value(reader, depth);
}

/* One field more; 0 where there is none, or its key is there already. */
static int fills(reader_t *reader, PyObject *found, int depth) {
    text_t text;
    if (!take_text(&reader->cursor, &text)) return 0;
    PyObject *const key = key_of(reader, text), *const one = key ? field(reader, text, depth) : NULL;
    const Py_ssize_t n_before = PyDict_Size(found);
    const int is_new = one && !PyDict_SetItem(found, key, one) && PyDict_Size(found) > n_before;
    Py_XDECREF(one);
    Py_XDECREF(key);
    return is_new;
}

/* Behind "{". */
static PyObject *mapping(reader_t *reader, int depth) {
    cursor_t *const cursor = &reader->cursor;
    PyObject *const found = enters(reader, depth) ? PyDict_New() : NULL;
    if (!found) return NULL;
    while (n_left(cursor) && *cursor->at != '}')
        if (!fills(reader, found, depth)) return Py_DECREF(found), NULL;
    if (!n_left(cursor)) return Py_DECREF(found), NULL;
    cursor->at++;
    return found;
}

static PyObject *number(cursor_t *cursor, uint8_t marker) {
    const int n_bytes = marker == 'C' ? 1 : item_bytes(marker);
    if (!n_bytes || n_left(cursor) < n_bytes) return NULL;
    const uint8_t *const at = cursor->at;
    const int64_t whole = big_endian(at, n_bytes);
    cursor->at += n_bytes;
    if (marker == 'd') {
        const uint32_t bits = (uint32_t)whole;
        float found;
        memcpy(&found, &bits, sizeof found);
        return PyFloat_FromDouble((double)found);
    }
    if (marker == 'D') {
        double found;
        memcpy(&found, &whole, sizeof found);
        return PyFloat_FromDouble(found);
    }
    return PyLong_FromLongLong(marker == 'U' || marker == 'C' ? *at : whole);
}

static PyObject *value(reader_t *reader, int depth) {
    cursor_t *const cursor = &reader->cursor;
    text_t text;
    if (!n_left(cursor)) return NULL;
    const uint8_t marker = *cursor->at++;
    switch (marker) {
    case '{': return mapping(reader, depth + 1);
    case '[': return array(reader, depth + 1);
    case 'S': return take_text(cursor, &text) ? string_of(text) : NULL;
    case 'Z': Py_RETURN_NONE;
    case 'T': Py_RETURN_TRUE;
    case 'F': Py_RETURN_FALSE;
    default: return number(cursor, marker);
    }
}

/* read(data, typed, trees) -> the value, or None where it declines */
static PyObject *read_value(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    char *bytes;
    Py_ssize_t n_bytes;
    if (n_args != 3) return PyErr_Format(PyExc_TypeError, "read takes a document, and what makes arrays and trees");
    if (PyBytes_AsStringAndSize(args[0], &bytes, &n_bytes) < 0) return NULL;
    const uint8_t *const begin = (const uint8_t *)bytes;
    PyObject *const keys = PyDict_New();
    if (!keys) return NULL;
    reader_t reader = {
        {begin, begin + n_bytes}, begin, FEWEST_CONTAINERS + n_bytes / BYTES_PER_CONTAINER, args[0], keys, args[1], args[2],
    };
    PyObject *found = value(&reader, 0);
    Py_DECREF(keys);
    if (found && n_left(&reader.cursor)) Py_CLEAR(found); /* more behind it */
    if (found || PyErr_Occurred()) return found;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"read", (PyCFunction)(void (*)(void))read_value, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "ubjson", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_ubjson(void) { return PyModule_Create(&module); }
