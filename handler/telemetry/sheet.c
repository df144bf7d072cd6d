/* A sheet that calls are written down on as they are answered, each as the line that container/capture/lines.py makes of it.
 *
 * Kept as they are until somebody has time for them, calls cost more than their lines: a dozen objects each that live on,
 * leave the processor's caches and meet the collector.
 *
 * A sheet writes on pages that its owner gives it and takes back, so lines are never copied, and what a page of memory begins
 * with, a file does.
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
#include <string.h>

#include "json.h"

enum {
    MAX_BODY_BYTES = 2048, /* longer ones would keep other calls waiting for some microseconds */
    MAX_NAME_BYTES = 1024,
    FRAME_BYTES = 1024, /* of a line, what is the same in all, and its numbers */
    N_PARTS = 7,
};

typedef struct {
    PyObject_HEAD
    PyObject *otherwise; /* is called with what is declined */
    Py_buffer page;      /* its `obj` is NULL while there is none */
    int64_t n_bytes, n_calls;
    int64_t first_ns;                    /* when the first call of those on it began */
    int64_t epoch_ns, from_ns, until_ns; /* the counter's zero, and the calls that are wanted: begun from one up to the other */
    int64_t second;                      /* that was written last, and how: it is most often the same */
    char second_text[SECOND_BYTES];
} Sheet;

typedef struct {
    const char *bytes;
    Py_ssize_t n_bytes;
} Text;

typedef struct {
    Text asked_type, asked, answered_type, answered, request_id, inference_id, target, version;
    const char *cache;
    int64_t status, wait_us, began, held, decoded, predicted, ended;
} Call;

static PyObject *content_type_header, *inference_id_header; /* as headers are named, see messages.py */

/* -- reading a call: each is 0, without an exception, for what is out of the ordinary, which a subclass is ------------------ */

static int declined(void) {
    PyErr_Clear();
    return 0;
}

static int take_items(PyObject *tuple, PyObject **items, Py_ssize_t n_items) {
    if (PyTuple_Size(tuple) != n_items) return declined(); /* of what is no tuple it is -1 */
    for (Py_ssize_t at = 0; at < n_items; at++) items[at] = PyTuple_GetItem(tuple, at);
    return 1;
}

static int take_name(PyObject *value, Text *name) {
    if (!PyUnicode_CheckExact(value)) return 0;
    name->bytes = PyUnicode_AsUTF8AndSize(value, &name->n_bytes); /* there is none of half a surrogate pair */
    return name->bytes ? name->n_bytes <= MAX_NAME_BYTES : declined();
}

static int take_body(PyObject *value, Text *body) {
    char *bytes;
    if (!PyBytes_CheckExact(value) || PyBytes_AsStringAndSize(value, &bytes, &body->n_bytes) < 0) return declined();
    body->bytes = bytes;
    return body->n_bytes <= MAX_BODY_BYTES;
}

static int take_number(PyObject *value, int64_t *number) {
    *number = PyLong_CheckExact(value) ? PyLong_AsLongLong(value) : -1;
    return *number >= 0 || declined();
}

static int read_times(PyObject *marks, Call *call) {
    PyObject *times[5];
    return take_items(marks, times, 5) && take_number(times[0], &call->began) && take_number(times[1], &call->held) &&
           take_number(times[2], &call->decoded) && take_number(times[3], &call->predicted) &&
           take_number(times[4], &call->ended) && call->began <= call->held && call->held <= call->decoded &&
           call->decoded <= call->predicted && call->predicted <= call->ended;
}

static int read_call(PyObject *const *parts, Call *call) {
    PyObject *request[4], *answer[4];
    if (!take_items(parts[0], request, 4) || !take_items(parts[1], answer, 4) || !PyDict_CheckExact(request[0])) return 0;
    PyObject *sent_type = PyDict_GetItemWithError(request[0], content_type_header);
    PyObject *sent_id = PyDict_GetItemWithError(request[0], inference_id_header);
    if (PyErr_Occurred()) return declined();
    call->asked_type = (Text){"", 0}, call->inference_id = (Text){NULL, 0};
    call->cache = parts[4] == Py_True ? "hit" : parts[4] == Py_False ? "miss" : "none";
    return (!sent_type || take_name(sent_type, &call->asked_type)) && (!sent_id || take_name(sent_id, &call->inference_id)) &&
           take_body(request[1], &call->asked) && take_name(request[2], &call->request_id) &&
           take_number(answer[0], &call->status) && take_name(answer[1], &call->answered_type) &&
           take_body(answer[2], &call->answered) && take_name(parts[2], &call->target) &&
           take_name(parts[3], &call->version) && take_number(parts[5], &call->wait_us) &&
           read_times(parts[6], call);
}

/* -- writing it ------------------------------------------------------------------------------------------------------------ */

static char *put(char *to, const char *text) {
    const size_t n_bytes = strlen(text);
    memcpy(to, text, n_bytes);
    return to + n_bytes;
}

static char *put_text(char *to, const Text *text) { return json_text(to, text->bytes, text->n_bytes); }

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
    to = put_text(put(to, "{\"observedContentType\":"), content_type);
    to = put(put(to, ",\"mode\":\""), mode);
    to = put(put(put(to, "\",\"encoding\":\""), encoding), "\",\"data\":");
    to = is_text ? put_text(to, body) : json_base64(to, body->bytes, body->n_bytes);
    return put(to, "}");
}

static char *put_us(char *to, int64_t from_ns, int64_t until_ns) { return json_decimal(to, (uint64_t)(until_ns - from_ns) / 1000); }

static char *put_second(char *to, Sheet *sheet, int64_t second) {
    if (second != sheet->second || !*sheet->second_text) {
        json_second(sheet->second_text, second);
        sheet->second = second;
    }
    memcpy(to, sheet->second_text, SECOND_BYTES);
    return to + SECOND_BYTES;
}

/* For a line of a call that began then. */
static int has_room(const Sheet *sheet, int64_t began, int64_t n_bytes) {
    return began >= sheet->from_ns && began < sheet->until_ns && n_bytes <= sheet->page.len - sheet->n_bytes;
}

static void note_line(Sheet *sheet, int64_t began, int64_t n_bytes) {
    if (!sheet->n_calls++) sheet->first_ns = began;
    sheet->n_bytes = n_bytes;
}

/* NULL when only Python can write it. */
static char *put_call(char *to, Sheet *sheet, const Call *call) {
    to = put_side(put(to, "{\"captureData\":{\"endpointInput\":"), &call->asked_type, "INPUT", &call->asked);
    if (!to) return NULL;
    to = put_side(put(to, ",\"endpointOutput\":"), &call->answered_type, "OUTPUT", &call->answered);
    if (!to) return NULL;
    to = put_text(put(to, "},\"eventMetadata\":{\"targetModel\":"), &call->target);
    to = put_text(put(to, ",\"modelVersion\":"), &call->version);
    to = put(put(put(to, ",\"cache\":\""), call->cache), "\",\"status\":");
    to = json_decimal(to, (uint64_t)call->status);
    to = put_text(put(to, ",\"eventId\":"), &call->request_id);
    if (call->inference_id.bytes) to = put_text(put(to, ",\"inferenceId\":"), &call->inference_id);
    to = put_second(put(to, ",\"inferenceTime\":\""), sheet, (sheet->epoch_ns + call->began) / 1000000000);
    to = json_decimal(put(to, "\",\"stagesUs\":{\"wait\":"), (uint64_t)call->wait_us);
    to = put_us(put(to, ",\"decode\":"), call->held, call->decoded);
    to = put_us(put(to, ",\"predict\":"), call->decoded, call->predicted);
    to = put_us(put(to, ",\"encode\":"), call->predicted, call->ended);
    to = put_us(put(to, "},\"totalUs\":"), call->began, call->ended);
    return put(to, "},\"eventVersion\":\"0\"}\n");
}

static int64_t most_bytes(const Call *call) {
    return FRAME_BYTES + JSON_PER_BYTE * (int64_t)(call->asked_type.n_bytes + call->asked.n_bytes + call->answered_type.n_bytes +
                                                   call->answered.n_bytes + call->request_id.n_bytes + call->inference_id.n_bytes +
                                                   call->target.n_bytes + call->version.n_bytes);
}

static int write_call(Sheet *sheet, PyObject *const *parts) {
    Call call;
    if (!read_call(parts, &call) || !has_room(sheet, call.began, most_bytes(&call))) return 0;
    if (sheet->epoch_ns + call.began < 0) return 0; /* before 1970 */
    char *const text = (char *)sheet->page.buf, *const end = put_call(text + sheet->n_bytes, sheet, &call);
    if (end) note_line(sheet, call.began, end - text);
    return end != NULL;
}

/* -- what Python sees ------------------------------------------------------------------------------------------------------- */

/* take(*parts of a call): it is on the page now, or `otherwise` has been called with it */
static PyObject *take(PyObject *self, PyObject *const *parts, Py_ssize_t n_parts) {
    Sheet *sheet = (Sheet *)self;
    if (n_parts == N_PARTS && write_call(sheet, parts)) Py_RETURN_NONE;
    PyObject *declined = sheet->otherwise ? PyTuple_New(n_parts) : PyErr_NoMemory();
    if (!declined) return NULL;
    for (Py_ssize_t at = 0; at < n_parts; at++) PyTuple_SetItem(declined, at, Py_NewRef(parts[at]));
    PyObject *done = PyObject_CallObject(sheet->otherwise, declined);
    Py_DECREF(declined);
    return done;
}

/* append(a line, when its call began) -> whether it is on the page now */
static PyObject *append(PyObject *self, PyObject *args) {
    Sheet *sheet = (Sheet *)self;
    const char *line;
    Py_ssize_t n_bytes;
    long long began;
    if (!PyArg_ParseTuple(args, "y#L", &line, &n_bytes, &began)) return NULL;
    if (!has_room(sheet, began, n_bytes)) Py_RETURN_FALSE;
    memcpy((char *)sheet->page.buf + sheet->n_bytes, line, (size_t)n_bytes);
    note_line(sheet, began, sheet->n_bytes + n_bytes);
    Py_RETURN_TRUE;
}

/* filled() -> (bytes, lines, when the first call began), of the page there is */
static PyObject *filled(PyObject *self, PyObject *nothing) {
    (void)nothing;
    const Sheet *sheet = (Sheet *)self;
    return Py_BuildValue("(LLL)", (long long)sheet->n_bytes, (long long)sheet->n_calls, (long long)sheet->first_ns);
}

static void set_time(Sheet *sheet, long long epoch_ns, long long from_ns, long long until_ns) {
    sheet->epoch_ns = epoch_ns, sheet->from_ns = from_ns, sheet->until_ns = until_ns;
}

/* aim(epoch_ns, from_ns, until_ns) -> whether the page is empty still, and these are its times now */
static PyObject *aim(PyObject *self, PyObject *args) {
    Sheet *sheet = (Sheet *)self;
    long long epoch_ns, from_ns, until_ns;
    if (!PyArg_ParseTuple(args, "LLL", &epoch_ns, &from_ns, &until_ns)) return NULL;
    if (sheet->n_calls) Py_RETURN_FALSE;
    set_time(sheet, epoch_ns, from_ns, until_ns);
    Py_RETURN_TRUE;
}

/* turn(page, epoch_ns, from_ns, until_ns) -> what was filled of the page before; what comes is written on this one */
static PyObject *turn(PyObject *self, PyObject *args) {
    Sheet *sheet = (Sheet *)self;
    PyObject *page;
    Py_buffer blank;
    long long epoch_ns, from_ns, until_ns;
    if (!PyArg_ParseTuple(args, "OLLL", &page, &epoch_ns, &from_ns, &until_ns)) return NULL;
    if (PyObject_GetBuffer(page, &blank, PyBUF_WRITABLE) < 0) return NULL;
    PyObject *found = filled(self, NULL);
    if (!found) {
        PyBuffer_Release(&blank);
        return NULL;
    }
    PyBuffer_Release(&sheet->page);
    sheet->page = blank;
    sheet->n_bytes = sheet->n_calls = sheet->first_ns = 0;
    set_time(sheet, epoch_ns, from_ns, until_ns);
    return found;
}

static int begin(PyObject *self, PyObject *args, PyObject *names) {
    Sheet *sheet = (Sheet *)self;
    PyObject *otherwise;
    if (names || !PyArg_ParseTuple(args, "O", &otherwise) || !PyCallable_Check(otherwise) || sheet->otherwise) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "Sheet takes what is called with what is declined, once");
        return -1;
    }
    sheet->otherwise = Py_NewRef(otherwise);
    return 0;
}

static int visit(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(((Sheet *)self)->otherwise);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int forget(PyObject *self) {
    Py_CLEAR(((Sheet *)self)->otherwise);
    return 0;
}

static void end(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    forget(self);
    PyBuffer_Release(&((Sheet *)self)->page);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, NULL},
    {"append", append, METH_VARARGS, NULL},
    {"filled", filled, METH_NOARGS, NULL},
    {"aim", aim, METH_VARARGS, NULL},
    {"turn", turn, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {{Py_tp_init, (void *)begin},     {Py_tp_dealloc, (void *)end},  {Py_tp_traverse, (void *)visit},
                              {Py_tp_clear, (void *)forget}, {Py_tp_methods, (void *)methods}, {0, NULL}};

static PyType_Spec spec = {"sheet.Sheet", sizeof(Sheet), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};

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
