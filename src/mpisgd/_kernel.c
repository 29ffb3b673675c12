/* The loops that nearly all of a run's time is spent in, over rows in CSR form.

   compiled_loops.py is the only caller, says what each function computes, and has the same in NumPy and SciPy where this
   file was not compiled; tests hold the two to each other.

   Row i is the places row_pointers[i]:row_pointers[i + 1] of columns (int32) and values (float32). The pointers are int32
   or, where a shard has more than 2^31 elements, int64. Columns are trusted to be in range: SparseRows.checked saw to it. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum loss { HINGE, SQUARED_HINGE, LOGISTIC };

struct rows {
    Py_buffer pointers, columns, values;
    int wide; /* pointers are int64 */
    int64_t count;
};

static int64_t pointer(const struct rows *rows, int64_t i)
{
    return rows->wide ? ((const int64_t *)rows->pointers.buf)[i] : ((const int32_t *)rows->pointers.buf)[i];
}

/* x.w. Four sums, since each addition to one has to wait four cycles for the last. */
static float dot(const int32_t *columns, const float *values, int64_t elements, const float *weights)
{
    float a = 0, b = 0, c = 0, d = 0;
    int64_t k = 0;
    for (; k + 4 <= elements; k += 4) {
        a += values[k] * weights[columns[k]];
        b += values[k + 1] * weights[columns[k + 1]];
        c += values[k + 2] * weights[columns[k + 2]];
        d += values[k + 3] * weights[columns[k + 3]];
    }
    for (; k < elements; k++)
        a += values[k] * weights[columns[k]];
    return (a + b) + (c + d);
}

static float row_dot(const struct rows *rows, int64_t i, const float *weights)
{
    int64_t first = pointer(rows, i);
    return dot((const int32_t *)rows->columns.buf + first, (const float *)rows->values.buf + first,
               pointer(rows, i + 1) - first, weights);
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

/* w += c x */
static void add_row(const struct rows *rows, int64_t i, float coefficient, float *weights)
{
    const int32_t *columns = rows->columns.buf;
    const float *values = rows->values.buf;
    int64_t stop = pointer(rows, i + 1);
    for (int64_t k = pointer(rows, i); k < stop; k++)
        weights[columns[k]] += coefficient * values[k];
}

static int check(int holds, const char *what)
{
    if (!holds)
        PyErr_Format(PyExc_ValueError, "arrays do not fit: %s", what);
    return holds;
}

static void release(struct rows *rows)
{
    PyBuffer_Release(&rows->pointers);
    PyBuffer_Release(&rows->columns);
    PyBuffer_Release(&rows->values);
}

static int complete(struct rows *rows)
{
    int64_t width = rows->wide ? 8 : 4;
    rows->count = rows->pointers.len / width - 1;
    return check(rows->pointers.len % width == 0 && rows->count >= 0, "row pointers")
        && check(rows->columns.len == rows->values.len && rows->columns.len % 4 == 0, "columns and values")
        && check(pointer(rows, 0) >= 0 && pointer(rows, rows->count) <= rows->columns.len / 4, "pointers past the end");
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

static PyObject *copy_rows(PyObject *module, PyObject *arguments)
{
    struct rows rows;
    Py_buffer chosen, out_columns, out_values;
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*pw*w*", &chosen, &rows.pointers, &rows.columns, &rows.values, &rows.wide,
                          &out_columns, &out_values))
        return NULL;
    int right = complete(&rows) && check(out_columns.len == out_values.len, "outputs");
    const int64_t *numbers = chosen.buf;
    int64_t room = out_columns.len / 4, at = 0;
    for (int64_t k = 0; right && k < chosen.len / 8; k++) {
        int64_t i = numbers[k];
        right = check(i >= 0 && i < rows.count, "row number");
        if (!right)
            break;
        int64_t first = pointer(&rows, i), elements = pointer(&rows, i + 1) - first;
        right = check(elements >= 0 && elements <= room - at, "outputs");
        if (!right)
            break;
        memcpy((int32_t *)out_columns.buf + at, (const int32_t *)rows.columns.buf + first, 4 * elements);
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

struct learning {
    float *weights;
    double scale, step_size, regularization, bias_step;
    int64_t bias; /* its place among the weights, or -1 */
    enum loss loss;
};

/* One mini-batch, the rows start:stop. All margins come first, from the same weights; only rows with a slope are read
   again. `margins` has room for the batch. */
static void step(const struct rows *rows, const float *labels, const float *squared_norms, int64_t start, int64_t stop,
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
    for (int64_t i = start; i < stop; i++) {
        float size = (float)to->step_size * squared_norms[i];
        float coefficient = bounded_step(to->loss, margins[i - start], size, moving) * labels[i] * rate;
        if (coefficient != 0)
            add_row(rows, i, coefficient, to->weights);
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
    return right ? Py_BuildValue("nd", start, to.scale) : NULL;
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
        double sum = 0;
        for (int64_t k = pointer(&rows, i); k < pointer(&rows, i + 1); k++)
            sum += (double)values[k] * values[k];
        ((double *)out.buf)[i] = sum;
    }
    release(&rows);
    PyBuffer_Release(&out);
    return right ? Py_NewRef(Py_None) : NULL;
}

/* changes = (mine - shared) scale; returns how many are not 0. */
static PyObject *subtract(PyObject *module, PyObject *arguments)
{
    Py_buffer mine, shared, changes;
    double scale;
    if (!PyArg_ParseTuple(arguments, "y*y*dw*", &mine, &shared, &scale, &changes))
        return NULL;
    int right = check(mine.len == shared.len && mine.len == changes.len, "weights and changes");
    int64_t nonzero = 0;
    if (right) {
        const float *a = mine.buf, *b = shared.buf;
        float *out = changes.buf, factor = (float)scale;
        int32_t count = 0;
        #pragma omp simd reduction(+ : count)
        for (Py_ssize_t j = 0; j < changes.len / 4; j++) {
            out[j] = (a[j] - b[j]) * factor;
            count += out[j] != 0;
        }
        nonzero = count;
    }
    PyBuffer_Release(&mine);
    PyBuffer_Release(&shared);
    PyBuffer_Release(&changes);
    return right ? PyLong_FromLongLong(nonzero) : NULL;
}

/* e^x of a small x, to float32's last bit. */
static float small_exp(float x)
{
    return 1 + x * (1 + x * (0.5f + x * (1.0f / 6 + x * (1.0f / 24))));
}

/* w = exp(g L) w + g d, with a gain g of each column. */
static void merge_each(float *weights, const float *gains, const float *changes, Py_ssize_t columns, float log_decay)
{
    if (fabsf(log_decay) < 0.05f) { /* and no gain is above 1 */
        #pragma omp simd
        for (Py_ssize_t j = 0; j < columns; j++)
            weights[j] = weights[j] * small_exp(gains[j] * log_decay) + gains[j] * changes[j];
    } else {
        for (Py_ssize_t j = 0; j < columns; j++)
            weights[j] = weights[j] * expf(gains[j] * log_decay) + gains[j] * changes[j];
    }
}

static PyObject *merge(PyObject *module, PyObject *arguments)
{
    Py_buffer weights, gains, changes;
    double log_decay;
    if (!PyArg_ParseTuple(arguments, "w*y*y*d", &weights, &gains, &changes, &log_decay))
        return NULL;
    int right = check(weights.len == gains.len && weights.len == changes.len, "weights, gains and changes");
    if (right)
        merge_each(weights.buf, gains.buf, changes.buf, weights.len / 4, (float)log_decay);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&gains);
    PyBuffer_Release(&changes);
    return right ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"multiply", multiply, METH_VARARGS, NULL},
    {"copy_rows", copy_rows, METH_VARARGS, NULL},
    {"squared_norms", squared_norms, METH_VARARGS, NULL},
    {"minibatch_steps", minibatch_steps, METH_VARARGS, NULL},
    {"subtract", subtract, METH_VARARGS, NULL},
    {"merge", merge, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
