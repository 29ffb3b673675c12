/* The loops that nearly all of a run's time is spent in, over rows in CSR form.

   compiled_loops.py is the only caller, says what each function computes, and has the same in NumPy and SciPy where this
   file was not compiled; tests hold the two to each other.

   Row i is the places row_pointers[i]:row_pointers[i + 1] of columns and values (float32). Columns are int32 or, where a
   shard has no more of them than that can count, uint16: less to read is 5 to 9 % less time. The pointers are int32 or,
   where a shard has more than 2^31 elements, int64. Columns are trusted to be in range: SparseRows.checked saw to it. */

#include "_kernel.h"

/* x.w. Four sums, since each addition to one has to wait four cycles for the last. */
INLINE float dot(const struct rows *rows, int narrow, int64_t k, int64_t stop, const float *weights)
{
    const void *columns = rows->columns.buf;
    const float *values = rows->values.buf;
    float a = 0, b = 0, c = 0, d = 0;
    for (; k + 4 <= stop; k += 4) {
        a += values[k] * weights[column(columns, narrow, k)];
        b += values[k + 1] * weights[column(columns, narrow, k + 1)];
        c += values[k + 2] * weights[column(columns, narrow, k + 2)];
        d += values[k + 3] * weights[column(columns, narrow, k + 3)];
    }
    for (; k < stop; k++)
        a += values[k] * weights[column(columns, narrow, k)];
    return (a + b) + (c + d);
}

static float row_dot(const struct rows *rows, int64_t i, const float *weights)
{
    int64_t first = pointer(rows, i), stop = pointer(rows, i + 1);
    return rows->narrow ? dot(rows, 1, first, stop, weights) : dot(rows, 0, first, stop, weights);
}

/* The step that a row takes along y x, in units of eta, as in svm.LOSSES; `size` is eta ||x||^2, `moving` how many rows
   of the batch take one. */
static float bounded_step(enum loss loss, float margin, float size, float moving)
{
    float room = 1 - margin;
    switch (loss) {
    case HINGE:
        return room <= 0 ? 0 : room < size ? room / size : 1;
    case SQUARED_HINGE:
        return room <= 0 ? 0 : room / (0.5f + size * moving);
    default:
        return 0.5f * (1 - tanhf(margin / 2)) / (1 + 0.25f * size);
    }
}

/* l(m) of a margin m, as in svm.LOSSES. */
static double loss_of(enum loss loss, float margin)
{
    float room = 1 - margin;
    switch (loss) {
    case HINGE:
        return room <= 0 ? 0 : room;
    case SQUARED_HINGE:
        return room <= 0 ? 0 : room * room;
    default:
        return log1pf(expf(-fabsf(margin))) + (margin < 0 ? -margin : 0);
    }
}

/* w += c x */
INLINE void add(const struct rows *rows, int narrow, int64_t k, int64_t stop, float coefficient, float *weights)
{
    const float *values = rows->values.buf;
    for (; k < stop; k++)
        weights[column(rows->columns.buf, narrow, k)] += coefficient * values[k];
}

static void add_row(const struct rows *rows, int64_t i, float coefficient, float *weights)
{
    int64_t first = pointer(rows, i), stop = pointer(rows, i + 1);
    rows->narrow ? add(rows, 1, first, stop, coefficient, weights) : add(rows, 0, first, stop, coefficient, weights);
}

int check(int holds, const char *what)
{
    if (!holds)
        PyErr_Format(PyExc_ValueError, "arrays do not fit: %s", what);
    return holds;
}

void release(struct rows *rows)
{
    PyBuffer_Release(&rows->pointers);
    PyBuffer_Release(&rows->columns);
    PyBuffer_Release(&rows->values);
}

int complete(struct rows *rows)
{
    int64_t width = rows->wide ? 8 : 4;
    rows->count = rows->pointers.len / width - 1;
    rows->narrow = 2 * rows->columns.len == rows->values.len;
    return check(rows->pointers.len % width == 0 && rows->count >= 0, "row pointers")
        && check(rows->narrow || rows->columns.len == rows->values.len, "columns and values")
        && check(pointer(rows, 0) >= 0 && pointer(rows, rows->count) <= rows->values.len / 4, "pointers past the end");
}

int open_rows(PyObject *tuple, struct rows *rows)
{
    return PyArg_ParseTuple(tuple, "y*y*y*p", &rows->pointers, &rows->columns, &rows->values, &rows->wide) && complete(rows);
}

static PyObject *multiply(PyObject *module, PyObject *arguments)
{
    struct rows rows;
    Py_buffer weights, out;
    if (!PyArg_ParseTuple(arguments, "y*y*y*py*w*", &rows.pointers, &rows.columns, &rows.values, &rows.wide, &weights, &out))
        return NULL;
    int right = complete(&rows) && check(out.len == 4 * rows.count, "out");
    if (right) {
        float *margins = out.buf;
        for (int64_t i = 0; i < rows.count; i++)
            margins[i] = row_dot(&rows, i, weights.buf);
    }
    release(&rows);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&out);
    return right ? Py_NewRef(Py_None) : NULL;
}

static PyObject *judge(PyObject *module, PyObject *arguments)
{
    struct rows rows;
    Py_buffer labels, weights;
    double scale, losses = 0;
    int loss;
    if (!PyArg_ParseTuple(arguments, "y*y*y*py*y*di", &rows.pointers, &rows.columns, &rows.values, &rows.wide, &labels,
                          &weights, &scale, &loss))
        return NULL;
    int right = complete(&rows) && check(labels.len == 4 * rows.count, "labels")
        && check(loss >= HINGE && loss <= LOGISTIC, "loss");
    long long right_rows = 0;
    for (int64_t i = 0; right && i < rows.count; i++) {
        float margin = row_dot(&rows, i, weights.buf) * (float)scale, label = ((const float *)labels.buf)[i];
        right_rows += (margin > 0) == (label > 0);
        losses += loss_of((enum loss)loss, margin * label);
    }
    release(&rows);
    PyBuffer_Release(&labels);
    PyBuffer_Release(&weights);
    return right ? Py_BuildValue("Ld", right_rows, losses) : NULL;
}

static PyObject *copy_rows(PyObject *module, PyObject *arguments)
{
    struct rows rows;
    Py_buffer chosen, out_columns, out_values;
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*pw*w*", &chosen, &rows.pointers, &rows.columns, &rows.values, &rows.wide,
                          &out_columns, &out_values))
        return NULL;
    int right = complete(&rows) && check(out_columns.len == (rows.narrow ? out_values.len / 2 : out_values.len), "outputs");
    int64_t width = rows.narrow ? 2 : 4;
    const int64_t *numbers = chosen.buf;
    int64_t room = out_values.len / 4, at = 0;
    for (int64_t k = 0; right && k < chosen.len / 8; k++) {
        int64_t i = numbers[k];
        right = check(i >= 0 && i < rows.count, "row number");
        if (!right)
            break;
        int64_t first = pointer(&rows, i), elements = pointer(&rows, i + 1) - first;
        right = check(elements >= 0 && elements <= room - at, "outputs");
        if (!right)
            break;
        memcpy((char *)out_columns.buf + width * at, (const char *)rows.columns.buf + width * first, width * elements);
        memcpy((float *)out_values.buf + at, (const float *)rows.values.buf + first, 4 * elements);
        at += elements;
    }
    release(&rows);
    PyBuffer_Release(&chosen);
    PyBuffer_Release(&out_columns);
    PyBuffer_Release(&out_values);
    return right ? Py_NewRef(Py_None) : NULL;
}

/* The bias after a step, in units of the new scale: `before` it has had the full step like any weight, of which it is
   to have the share bias_step; the scale has shrunk by the whole penalty already. */
static float slowed_bias(float before, float now, double shrinking, double bias_step)
{
    double shrunk = before * ((1 + shrinking) / (1 + bias_step * shrinking));
    return (float)(shrunk + bias_step * ((double)now - before));
}

/* All margins come first, from the same weights; only rows with a slope are read again. */
void step(const struct rows *rows, const float *labels, const float *squared_norms, int64_t start, int64_t stop,
          float *margins, struct learning *to)
{
    float scale = (float)to->scale, moving = 0;
    for (int64_t i = start; i < stop; i++) {
        margins[i - start] = labels[i] * row_dot(rows, i, to->weights) * scale;
        moving += margins[i - start] < 1;
    }
    double shrinking = to->step_size * to->regularization * (double)(stop - start);
    to->scale /= 1 + shrinking;
    float rate = (float)(to->step_size / to->scale);
    float before = to->bias < 0 ? 0 : to->weights[to->bias];
    float extra = to->bias < 0 ? 0 : (float)(to->bias_step - 1); /* the bias counts in a norm as it learns */
    for (int64_t i = start; i < stop; i++) {
        float size = (float)to->step_size * (squared_norms[i] + extra);
        float coefficient = bounded_step(to->loss, margins[i - start], size, moving) * labels[i] * rate;
        if (coefficient != 0) {
            add_row(rows, i, coefficient, to->weights);
            to->moved++;
        }
    }
    if (to->bias >= 0)
        to->weights[to->bias] = slowed_bias(before, to->weights[to->bias], shrinking, to->bias_step);
}

static PyObject *minibatch_steps(PyObject *module, PyObject *arguments)
{
    struct rows rows;
    struct learning to;
    Py_buffer labels, squared_norms, weights, margins;
    Py_ssize_t start, stop, batch_size;
    int loss, has_bias;
    double smallest_scale;
    if (!PyArg_ParseTuple(arguments, "y*y*y*py*y*nnnw*w*ddddidp", &rows.pointers, &rows.columns, &rows.values, &rows.wide,
                          &labels, &squared_norms, &start, &stop, &batch_size, &margins, &weights, &to.scale, &smallest_scale,
                          &to.step_size, &to.regularization, &loss, &to.bias_step, &has_bias))
        return NULL;
    to.weights = weights.buf;
    to.loss = (enum loss)loss;
    to.bias = has_bias ? weights.len / 4 - 1 : -1;
    to.moved = 0;
    int right = complete(&rows) && check(labels.len == 4 * rows.count, "labels")
        && check(squared_norms.len == 4 * rows.count, "squared norms")
        && check(0 <= start && start <= stop && stop <= rows.count, "range of rows")
        && check(batch_size >= 1 && margins.len >= 4 * batch_size, "batch size")
        && check(loss >= HINGE && loss <= LOGISTIC, "loss");
    while (right && start < stop && to.scale >= smallest_scale) {
        Py_ssize_t end = stop - start < batch_size ? stop : start + batch_size;
        step(&rows, labels.buf, squared_norms.buf, start, end, margins.buf, &to);
        start = end;
    }
    release(&rows);
    PyBuffer_Release(&labels);
    PyBuffer_Release(&squared_norms);
    PyBuffer_Release(&margins);
    PyBuffer_Release(&weights);
    return right ? Py_BuildValue("ndL", start, to.scale, (long long)to.moved) : NULL;
}

static PyObject *squared_norms(PyObject *module, PyObject *arguments)
{
    struct rows rows;
    Py_buffer out;
    if (!PyArg_ParseTuple(arguments, "y*y*y*pw*", &rows.pointers, &rows.columns, &rows.values, &rows.wide, &out))
        return NULL;
    int right = complete(&rows) && check(out.len == 8 * rows.count, "out");
    const float *values = rows.values.buf;
    for (int64_t i = 0; right && i < rows.count; i++) {
        int64_t stop = pointer(&rows, i + 1);
        double sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int64_t k = pointer(&rows, i); k < stop; k++)
            sum += (double)values[k] * values[k];
        ((double *)out.buf)[i] = sum;
    }
    release(&rows);
    PyBuffer_Release(&out);
    return right ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"multiply", multiply, METH_VARARGS, NULL},
    {"judge", judge, METH_VARARGS, NULL},
    {"copy_rows", copy_rows, METH_VARARGS, NULL},
    {"squared_norms", squared_norms, METH_VARARGS, NULL},
    {"minibatch_steps", minibatch_steps, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int add_other_methods(PyObject *module)
{
    return PyModule_AddFunctions(module, vector_methods) || PyModule_AddFunctions(module, exchange_methods)
                   || PyModule_AddFunctions(module, lock_methods) || PyModule_AddFunctions(module, hogwild_methods)
                   || PyModule_AddFunctions(module, turn_methods)
               ? -1
               : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_other_methods}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
