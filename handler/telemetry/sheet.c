/* A sheet that calls are written down on as they are answered, each as the line that container/capture/lines.py makes of it.
 *
 * Kept as they are until somebody has time for them, calls cost more than their lines: a dozen objects each that live on,
 * leave the processor's caches and meet the collector.
 *
 * Rule: what is out of the ordinary is declined, and Python writes it. So is what there is no room for. The interpreter lock
 * guards a sheet: each function here is one step for all threads.
 *
 * Limited API, so that one library serves every CPython from 3.11 on.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

enum {
    MAX_BODY_BYTES = 2048, /* longer ones would keep other calls waiting for some microseconds */
    MAX_NAME_BYTES = 1024,
    FRAME_BYTES = 1024, /* of a line, what is the same in all, and its numbers */
    N_STAGES = 4,
};
static const int64_t LAST_SECOND = 253402300799; /* of the year 9999 */

typedef struct {
    PyObject_HEAD
    char *text;
    int64_t max_bytes, n_bytes, n_calls;
    int64_t first_ns;                     /* when the first call of those on it began */
    int64_t epoch_ns, from_ns, until_ns; /* the counter's zero, and the calls that are wanted: begun from one up to the other */
} Sheet;

typedef struct {
    const char *bytes;
    Py_ssize_t n_bytes;
} Text;

static PyObject *content_type_header, *inference_id_header; /* as headers are named, see messages.py */

/* -- reading a call: each is 0, without an exception, for what is out of the ordinary -------------------------------------- */

static int declined(void) {
    PyErr_Clear();
    return 0;
}

static int take_items(PyObject *tuple, PyObject **items, Py_ssize_t n_items) {
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != n_items) return declined();
    for (Py_ssize_t at = 0; at < n_items; at++) items[at] = PyTuple_GetItem(tuple, at);
    return 1;
}

static int take_name(PyObject *value, Text *name) {
    if (!PyUnicode_Check(value)) return 0;
    name->bytes = PyUnicode_AsUTF8AndSize(value, &name->n_bytes); /* there is none of half a surrogate pair */
    return name->bytes ? name->n_bytes <= MAX_NAME_BYTES : declined();
}

static int take_body(PyObject *value, Text *body) {
    char *bytes;
    if (!PyBytes_Check(value) || PyBytes_AsStringAndSize(value, &bytes, &body->n_bytes) < 0) return declined();
    body->bytes = bytes;
    return body->n_bytes <= MAX_BODY_BYTES;
}

static int take_number(PyObject *value, int64_t *number) {
    *number = PyLong_Check(value) ? PyLong_AsLongLong(value) : -1;
    return *number >= 0 || declined();
}

/* -- writing it ------------------------------------------------------------------------------------------------------------ */

static char *put(char *to, const char *text) {
    const size_t n_bytes = strlen(text);
    memcpy(to, text, n_bytes);
    return to + n_bytes;
}

static int is_type(const char *name, size_t n_bytes, const char *type) {
    if (n_bytes != strlen(type)) return 0;
    for (size_t at = 0; at < n_bytes; at++)
        if ((name[at] >= 'A' && name[at] <= 'Z' ? name[at] | 32 : name[at]) != type[at]) return 0;
    return 1;
}

/* The form a body is written in; NULL for a content type that only Python understands. */
static const char *encoding_of(const Text *content_type) {
    const char *from = content_type->bytes, *end = from + content_type->n_bytes;
    for (const char *at = from; at < end; at++)
        if (*at < ' ' || *at > '~') return NULL;
    for (const char *at = from; at < end; at++)
        if (*at == ';') end = at;
    while (from < end && *from == ' ') from++;
    while (from < end && end[-1] == ' ') end--;
    const size_t n_bytes = (size_t)(end - from);
    if (is_type(from, n_bytes, "text/csv")) return "CSV";
    if (is_type(from, n_bytes, "application/json") || is_type(from, n_bytes, "application/jsonlines")) return "JSON";
    return "BASE64";
}

static int is_ascii(const Text *body) {
    char all = 0;
    for (Py_ssize_t at = 0; at < body->n_bytes; at++) all |= body->bytes[at];
    return !(all & 0x80);
}

/* NULL when only Python can write it. */
static char *put_side(char *to, const Text *content_type, const char *mode, const Text *body) {
    const char *encoding = encoding_of(content_type);
    if (!encoding) return NULL;
    const int is_text = *encoding != 'B';
    if (is_text && !is_ascii(body)) return NULL; /* UTF-8, perhaps */
    to = json_text(put(to, "{\"observedContentType\":"), content_type->bytes, content_type->n_bytes);
    to = put(put(to, ",\"mode\":\""), mode);
    to = put(put(put(to, "\",\"encoding\":\""), encoding), "\",\"data\":");
    to = is_text ? json_text(to, body->bytes, body->n_bytes) : json_base64(to, body->bytes, body->n_bytes);
    return put(to, "}");
}

/* 0 when it cannot be written here. */
static int write_call(Sheet *sheet, PyObject *call) {
    static const char *const STAGES[N_STAGES] = {"\"wait\":", ",\"decode\":", ",\"predict\":", ",\"encode\":"};
    PyObject *exchange[7], *request[4], *answer[4], *times[5];
    if (!take_items(call, exchange, 7) || !take_items(exchange[0], request, 4) || !take_items(exchange[1], answer, 4) ||
        !take_items(exchange[6], times, 5) || !PyDict_Check(request[0]))
        return 0;
    Text asked, answered, asked_type = {"", 0}, answered_type, request_id, inference_id, target, version;
    PyObject *sent_type = PyDict_GetItemWithError(request[0], content_type_header);
    PyObject *sent_id = PyDict_GetItemWithError(request[0], inference_id_header);
    if (PyErr_Occurred() || (sent_type && !take_name(sent_type, &asked_type)) || (sent_id && !take_name(sent_id, &inference_id)))
        return declined();
    if (!take_body(request[1], &asked) || !take_name(request[2], &request_id) || !take_name(answer[1], &answered_type) ||
        !take_body(answer[2], &answered) || !take_name(exchange[2], &target) || !take_name(exchange[3], &version))
        return 0;
    int64_t status, wait_us, began, held, decoded, predicted, ended;
    if (!take_number(answer[0], &status) || !take_number(exchange[5], &wait_us) || !take_number(times[0], &began) ||
        !take_number(times[1], &held) || !take_number(times[2], &decoded) || !take_number(times[3], &predicted) ||
        !take_number(times[4], &ended))
        return 0;
    const int64_t second = (sheet->epoch_ns + began) / 1000000000;
    if (began < sheet->from_ns || began >= sheet->until_ns || second < 0 || second > LAST_SECOND) return 0;
    if (held < began || decoded < held || predicted < decoded || ended < predicted) return 0;
    const Py_ssize_t n_texts = asked.n_bytes + answered.n_bytes + asked_type.n_bytes + answered_type.n_bytes +
                               request_id.n_bytes + (sent_id ? inference_id.n_bytes : 0) + target.n_bytes + version.n_bytes;
    if (FRAME_BYTES + JSON_PER_BYTE * (int64_t)n_texts > sheet->max_bytes - sheet->n_bytes) return 0;

    char *to = put(sheet->text + sheet->n_bytes, "{\"captureData\":{\"endpointInput\":");
    if (!(to = put_side(to, &asked_type, "INPUT", &asked))) return 0;
    to = put(to, ",\"endpointOutput\":");
    if (!(to = put_side(to, &answered_type, "OUTPUT", &answered))) return 0;
    to = json_text(put(to, "},\"eventMetadata\":{\"targetModel\":"), target.bytes, target.n_bytes);
    to = json_text(put(to, ",\"modelVersion\":"), version.bytes, version.n_bytes);
    const char *cache = exchange[4] == Py_True ? "hit" : exchange[4] == Py_False ? "miss" : "none";
    to = json_decimal(put(put(put(to, ",\"cache\":\""), cache), "\",\"status\":"), (uint64_t)status);
    to = json_text(put(to, ",\"eventId\":"), request_id.bytes, request_id.n_bytes);
    if (sent_id) to = json_text(put(to, ",\"inferenceId\":"), inference_id.bytes, inference_id.n_bytes);
    to = json_second(put(to, ",\"inferenceTime\":\""), second);
    to = put(to, "\",\"stagesUs\":{");
    const int64_t stages_us[N_STAGES] = {wait_us, (decoded - held) / 1000, (predicted - decoded) / 1000,
                                         (ended - predicted) / 1000};
    for (int stage = 0; stage < N_STAGES; stage++) to = json_decimal(put(to, STAGES[stage]), (uint64_t)stages_us[stage]);
    to = json_decimal(put(to, "},\"totalUs\":"), (uint64_t)((ended - began) / 1000));
    to = put(to, "},\"eventVersion\":\"0\"}\n");

    if (!sheet->n_calls++) sheet->first_ns = began;
    sheet->n_bytes = to - sheet->text;
    return 1;
}

/* -- what Python sees ------------------------------------------------------------------------------------------------------- */

/* add(parts of a call) -> whether it is on the sheet now */
static PyObject *add(PyObject *self, PyObject *call) { return PyBool_FromLong(write_call((Sheet *)self, call)); }

/* turn(epoch_ns, from_ns, until_ns) -> (lines, how many, when the first began); what comes is written on the other side */
static PyObject *turn(PyObject *self, PyObject *args) {
    Sheet *sheet = (Sheet *)self;
    long long epoch_ns, from_ns, until_ns;
    if (!PyArg_ParseTuple(args, "LLL", &epoch_ns, &from_ns, &until_ns)) return NULL;
    PyObject *found = Py_BuildValue("(y#LL)", sheet->text, (Py_ssize_t)sheet->n_bytes, (long long)sheet->n_calls,
                                    (long long)sheet->first_ns);
    if (!found) return NULL;
    sheet->n_bytes = sheet->n_calls = sheet->first_ns = 0;
    sheet->epoch_ns = epoch_ns, sheet->from_ns = from_ns, sheet->until_ns = until_ns;
    return found;
}

static int begin(PyObject *self, PyObject *args, PyObject *names) {
    Sheet *sheet = (Sheet *)self;
    long long max_bytes;
    if (names || !PyArg_ParseTuple(args, "L", &max_bytes) || max_bytes < 1 || sheet->text) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "Sheet takes how many bytes it has room for, once");
        return -1;
    }
    sheet->text = malloc((size_t)max_bytes);
    if (!sheet->text) {
        PyErr_NoMemory();
        return -1;
    }
    sheet->max_bytes = max_bytes;
    return 0;
}

static void end(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    free(((Sheet *)self)->text);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"add", add, METH_O, NULL},
    {"turn", turn, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_init, (void *)begin}, {Py_tp_dealloc, (void *)end}, {Py_tp_methods, methods}, {0, NULL}};

static PyType_Spec spec = {"sheet.Sheet", sizeof(Sheet), 0, Py_TPFLAGS_DEFAULT, slots};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "sheet", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_sheet(void) {
    content_type_header = PyUnicode_InternFromString("content-type");
    inference_id_header = PyUnicode_InternFromString("x-amzn-sagemaker-inference-id");
    if (!content_type_header || !inference_id_header) return NULL;
    PyObject *made = PyModule_Create(&module), *type = made ? PyType_FromSpec(&spec) : NULL;
    if (!type || PyModule_AddObjectRef(made, "Sheet", type) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(made);
        return NULL;
    }
    Py_DECREF(type);
    return made;
}
