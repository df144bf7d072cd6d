/* Files of the disk cache read several at a time, as a module of Python's. One by one, in Python, each lets go of the interpreter
 * lock six times, and threads that want it wait longer than reading takes.
 *
 * Rule: only ordinary files are read here: ours, whole, and right by their checksum, as disk_cache.py writes them. What is said of
 * any other is nothing, and disk_cache.py finds out why. No number in a file is believed before it was held against the file's
 * size.
 *
 * Limited API, as row.c.
 */

#define _POSIX_C_SOURCE 200809L
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum.h"

/* walk.c */
int64_t forest_largest_tree(const void *forest, int64_t n_bytes);
int forest_is_sound(const void *packed, int64_t n_bytes, uint16_t *levels);

/* Files at once, and documents in one: a k-fold archive has some ten. */
enum { MOST_FILES = 64, MOST_DOCUMENTS = 16 };
enum { MAGIC_BYTES = 16 };
static const char MAGIC[MAGIC_BYTES] = "mme disk 3\n";
static const int64_t S = 1000000000;
/* Read of a file before its sizes are known: mostly with the whole of the head's text. */
enum { START_BYTES = 1024 };
/* After so long a file's last use is written down anew. It says who leaves first after a restart, and each time costs as much as
 * to read half a model. */
enum { FRESH_S = 3600 };

/* How a file begins, as far as its sizes go; then there is the head's text, then the documents. */
typedef struct {
    char magic[MAGIC_BYTES];
    uint64_t checksum; /* of what follows up to the head's text, then of that, then of each document */
    uint64_t n_head, n_documents, sizes[MOST_DOCUMENTS];
} front_t;
enum { FIXED_BYTES = offsetof(front_t, sizes), SUMMED_FROM = offsetof(front_t, n_head) };

typedef struct {
    int descriptor; /* -1: it is no ordinary file */
    int is_right;
    uint32_t walkable; /* a bit for each document that is a packed forest, and sound */
    int64_t mtime_ns, atime_ns;
    uint64_t n_start; /* of these: */
    char start[START_BYTES];
    front_t front;
    PyObject *head, *documents; /* once there is room for them; nobody else knows of them yet */
    char *texts[1 + MOST_DOCUMENTS]; /* where that room is */
} file_t;

static int is_ours(const struct stat *status) {
    return S_ISREG(status->st_mode) && status->st_uid == geteuid() && !(status->st_mode & (S_IWGRP | S_IWOTH));
}

static ssize_t read_at(int descriptor, void *to, uint64_t n_bytes, uint64_t at) {
    ssize_t n;
    do n = pread(descriptor, to, n_bytes, (off_t)at);
    while (n < 0 && errno == EINTR);
    return n;
}

/* n_bytes from `at` on; what of them is in the start is not read again. */
static int reads(const file_t *file, void *to, uint64_t n_bytes, uint64_t at) {
    uint64_t n_read = 0;
    if (at < file->n_start) {
        n_read = n_bytes < file->n_start - at ? n_bytes : file->n_start - at;
        memcpy(to, file->start + at, n_read);
    }
    while (n_read < n_bytes) {
        const ssize_t n = read_at(file->descriptor, (char *)to + n_read, n_bytes - n_read, at + n_read);
        if (n <= 0) return 0;
        n_read += (uint64_t)n;
    }
    return 1;
}

static uint64_t head_at(const front_t *front) { return FIXED_BYTES + front->n_documents * sizeof *front->sizes; }

/* Whether the file begins as one of ours, and is as long as it says. */
static int begins(file_t *file, uint64_t n_bytes) {
    front_t *const front = &file->front;
    const ssize_t n_start = read_at(file->descriptor, file->start, START_BYTES, 0);
    file->n_start = n_start < 0 ? 0 : (uint64_t)n_start;
    if (!reads(file, front, FIXED_BYTES, 0)) return 0;
    if (memcmp(front->magic, MAGIC, MAGIC_BYTES) || front->n_documents > MOST_DOCUMENTS || front->n_head > n_bytes) return 0;
    if (!reads(file, front->sizes, front->n_documents * sizeof *front->sizes, FIXED_BYTES)) return 0;
    uint64_t end = head_at(front) + front->n_head;
    for (uint64_t document = 0; document < front->n_documents; document++) {
        if (end > n_bytes || front->sizes[document] > n_bytes - end) return 0;
        end += front->sizes[document];
    }
    return end == n_bytes;
}

/* Of a time that 64 bits have no room for, some other. */
static int64_t ns(const struct timespec *time) { return (int64_t)((uint64_t)time->tv_sec * (uint64_t)S + (uint64_t)time->tv_nsec); }

static void open_file(int directory, const char *name, file_t *file) {
    struct stat status;
    /* Not blocking: to open a FIFO would wait for its writer. */
    file->descriptor = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file->descriptor < 0) return;
    if (fstat(file->descriptor, &status) == 0 && is_ours(&status) && begins(file, (uint64_t)status.st_size)) {
        file->mtime_ns = ns(&status.st_mtim);
        file->atime_ns = ns(&status.st_atim);
        return;
    }
    close(file->descriptor);
    file->descriptor = -1;
}

/* False with an exception. */
static int has_room(file_t *file) {
    const front_t *const front = &file->front;
    file->head = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)front->n_head);
    file->documents = PyTuple_New((Py_ssize_t)front->n_documents);
    if (!file->head || !file->documents) return 0;
    file->texts[0] = PyBytes_AsString(file->head);
    for (uint64_t document = 0; document < front->n_documents; document++) {
        PyObject *const room = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)front->sizes[document]);
        if (!room || PyTuple_SetItem(file->documents, (Py_ssize_t)document, room) < 0) return 0;
        file->texts[1 + document] = PyBytes_AsString(room);
    }
    return 1;
}

static int is_right(file_t *file) {
    const front_t *const front = &file->front;
    uint64_t at = head_at(front), found = checksum(&front->n_head, (int64_t)(at - SUMMED_FROM), 0);
    for (uint64_t text = 0; text <= front->n_documents; text++) {
        const uint64_t n_bytes = text ? front->sizes[text - 1] : front->n_head;
        if (!reads(file, file->texts[text], n_bytes, at)) return 0;
        found = checksum(file->texts[text], (int64_t)n_bytes, found);
        at += n_bytes;
    }
    return found == front->checksum;
}

/* While the document's bytes are in the processor's cache. Where there is no memory for it, somebody else looks. */
static int is_walkable(const void *document, int64_t n_bytes) {
    const int64_t n_nodes = forest_largest_tree(document, n_bytes);
    uint16_t *const levels = n_nodes ? malloc((size_t)n_nodes * sizeof *levels) : NULL;
    const int is_sound = levels && forest_is_sound(document, n_bytes, levels);
    free(levels);
    return is_sound;
}

static void read_file(file_t *file, int64_t now_ns) {
    file->is_right = is_right(file);
    if (!file->is_right) return;
    for (uint64_t document = 0; document < file->front.n_documents; document++)
        if (is_walkable(file->texts[1 + document], (int64_t)file->front.sizes[document])) file->walkable |= 1u << document;
    if (file->atime_ns <= now_ns && file->atime_ns > now_ns - FRESH_S * S) return;
    const struct timespec times[2] = {{.tv_sec = now_ns / S, .tv_nsec = now_ns % S}, {.tv_nsec = UTIME_OMIT}};
    futimens(file->descriptor, times); /* where it may not, only the order after a restart suffers */
}

/* What came of it; a reference of the caller's, or NULL with an exception. */
static PyObject *found_in(const file_t *file) {
    if (file->descriptor < 0 || !file->is_right) Py_RETURN_NONE;
    return Py_BuildValue("OOLI", file->head, file->documents, (long long)file->mtime_ns, (unsigned)file->walkable);
}

static PyObject *found_in_all(const file_t *files, Py_ssize_t n_files) {
    PyObject *const found = PyList_New(n_files);
    for (Py_ssize_t at = 0; found && at < n_files; at++) {
        PyObject *const one = found_in(files + at);
        if (!one || PyList_SetItem(found, at, one) < 0) return Py_DecRef(found), NULL;
    }
    return found;
}

static PyObject *read_all(int directory, const char *const *names, file_t *files, Py_ssize_t n_files, int64_t now_ns) {
    PyThreadState *state = PyEval_SaveThread();
    for (Py_ssize_t at = 0; at < n_files; at++) open_file(directory, names[at], files + at);
    PyEval_RestoreThread(state);
    int is_room = 1;
    for (Py_ssize_t at = 0; at < n_files; at++) is_room = is_room && (files[at].descriptor < 0 || has_room(files + at));
    state = PyEval_SaveThread();
    for (Py_ssize_t at = 0; at < n_files; at++) {
        if (files[at].descriptor < 0) continue;
        if (is_room) read_file(files + at, now_ns);
        close(files[at].descriptor);
    }
    PyEval_RestoreThread(state);
    return is_room ? found_in_all(files, n_files) : NULL;
}

/* read(directory, names, now_ns) -> for each its head, its documents, its mtime in ns and, as bits, which documents are forests
 * that can be walked; or None. Those are now used last. */
static PyObject *read_kept(PyObject *self, PyObject *const *args, Py_ssize_t n_args) {
    (void)self;
    if (n_args != 3 || !PyTuple_Check(args[1])) return PyErr_Format(PyExc_TypeError, "read takes a descriptor, names and the time");
    const long directory = PyLong_AsLong(args[0]);
    const long long now_ns = PyLong_AsLongLong(args[2]);
    const Py_ssize_t n_files = PyTuple_Size(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (n_files > MOST_FILES || now_ns < 0) return PyErr_Format(PyExc_ValueError, "at most %d files at once", MOST_FILES);
    const char *names[MOST_FILES];
    for (Py_ssize_t at = 0; at < n_files; at++)
        if (!(names[at] = PyBytes_AsString(PyTuple_GetItem(args[1], at)))) return NULL;
    file_t files[MOST_FILES];
    memset(files, 0, (size_t)n_files * sizeof *files);
    PyObject *const found = read_all((int)directory, names, files, n_files, now_ns);
    for (Py_ssize_t at = 0; at < n_files; at++) {
        Py_DecRef(files[at].head);
        Py_DecRef(files[at].documents);
    }
    return found;
}

static PyMethodDef functions[] = {
    {"read", (PyCFunction)(void (*)(void))read_kept, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "kept", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_kept(void) { return PyModule_Create(&module); }
