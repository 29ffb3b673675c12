/* The loops over vectors of the weights: what an exchange does to every column.

   vector_loops.py is the only caller, says what each function computes, and has the same in NumPy where this file was not
   compiled; tests hold the two to each other. Weights and changes are float32, lists of columns int32, versions int64. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdint.h>

int check(int holds, const char *what); /* in _kernel.c */

static void release(Py_buffer *buffers, int count)
{
    for (int i = 0; i < count; i++)
        PyBuffer_Release(&buffers[i]);
}

/* Columns that came from elsewhere are looked at before anything is written. NULL: all columns, in order. */
static int columns_in_range(const Py_buffer *columns, Py_ssize_t values, Py_ssize_t column_count)
{
    const int32_t *named = columns->buf;
    uint32_t largest = 0;
    if (named == NULL)
        return check(values == column_count, "values of all columns");
    if (!check(columns->len / 4 == values, "columns and values"))
        return 0;
    for (Py_ssize_t k = 0; k < values; k++)
        largest = (uint32_t)named[k] > largest ? (uint32_t)named[k] : largest;
    return check(values == 0 || largest < (uint64_t)column_count, "column out of range");
}

/* changes = (mine - shared) scale where that is above the threshold or not a number, else 0; returns how many are not 0. */
static PyObject *subtract(PyObject *module, PyObject *arguments)
{
    Py_buffer b[3];
    double scale, threshold;
    if (!PyArg_ParseTuple(arguments, "y*y*ddw*", &b[0], &b[1], &scale, &threshold, &b[2]))
        return NULL;
    int right = check(b[0].len == b[1].len && b[0].len == b[2].len, "weights and changes");
    int32_t count = 0;
    if (right) {
        const float *mine = b[0].buf, *shared = b[1].buf;
        float *changes = b[2].buf, factor = (float)scale, least = (float)threshold;
        #pragma omp simd reduction(+ : count)
        for (Py_ssize_t j = 0; j < b[2].len / 4; j++) {
            float change = (mine[j] - shared[j]) * factor;
            changes[j] = fabsf(change) <= least ? 0 : change;
            count += changes[j] != 0;
        }
    }
    release(b, 3);
    return right ? PyLong_FromLong(count) : NULL;
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
    Py_buffer b[3];
    double log_decay;
    if (!PyArg_ParseTuple(arguments, "w*y*y*d", &b[0], &b[1], &b[2], &log_decay))
        return NULL;
    int right = check(b[0].len == b[1].len && b[0].len == b[2].len, "weights, gains and changes");
    if (right)
        merge_each(b[0].buf, b[1].buf, b[2].buf, b[0].len / 4, (float)log_decay);
    release(b, 3);
    return right ? Py_NewRef(Py_None) : NULL;
}

/* (1 + a) / (1 + P a), the gain of one of P turns; written so that it is 1/P where a is infinite. */
static inline float damped(float a, float turns)
{
    float least = 1 / turns;
    return least + (1 - least) / (1 + turns * a);
}

static PyObject *damping(PyObject *module, PyObject *arguments)
{
    Py_buffer b[2];
    float turn_size, turns;
    if (!PyArg_ParseTuple(arguments, "y*ffw*", &b[0], &turn_size, &turns, &b[1]))
        return NULL;
    int right = check(b[0].len == b[1].len, "curvatures and gains");
    if (right) {
        const float *curvatures = b[0].buf;
        float *gains = b[1].buf;
        #pragma omp simd
        for (Py_ssize_t j = 0; j < b[0].len / 4; j++)
            gains[j] = damped(curvatures[j] * turn_size, turns);
    }
    release(b, 2);
    return right ? Py_NewRef(Py_None) : NULL;
}

/* average = average + share (scale w - average) */
static PyObject *blend(PyObject *module, PyObject *arguments)
{
    Py_buffer b[2];
    double share, scale;
    if (!PyArg_ParseTuple(arguments, "w*y*dd", &b[0], &b[1], &share, &scale))
        return NULL;
    int right = check(b[0].len == b[1].len, "average and weights");
    if (right) {
        float *average = b[0].buf, kept = (float)(1 - share), taken = (float)(share * scale);
        const float *weights = b[1].buf;
        #pragma omp simd
        for (Py_ssize_t j = 0; j < b[0].len / 4; j++)
            average[j] = average[j] * kept + weights[j] * taken;
    }
    release(b, 2);
    return right ? Py_NewRef(Py_None) : NULL;
}

/* Lists the changes that are not 0 and sets the base to the vector there. Every place is written, and the next one
   only moved on to where there was a change: which columns change is not to be guessed by the processor. */
static PyObject *pick_changes(PyObject *module, PyObject *arguments)
{
    Py_buffer b[5];
    if (!PyArg_ParseTuple(arguments, "y*y*w*w*w*", &b[0], &b[1], &b[2], &b[3], &b[4]))
        return NULL;
    int right = 1;
    for (int i = 1; i < 5; i++)
        right = right && check(b[i].len == b[0].len, "changes, vectors and lists");
    Py_ssize_t count = 0;
    if (right) {
        const float *changes = b[0].buf, *vector = b[1].buf;
        float *base = b[2].buf, *picked = b[4].buf;
        int32_t *columns = b[3].buf;
        for (Py_ssize_t j = 0; j < b[0].len / 4; j++) {
            int changed = changes[j] != 0;
            columns[count] = (int32_t)j;
            picked[count] = changes[j];
            base[j] = changed ? vector[j] : base[j];
            count += changed;
        }
    }
    release(b, 5);
    return right ? PyLong_FromSsize_t(count) : NULL;
}

/* Lists the columns changed after a version, and the vector there. */
static PyObject *pick_since(PyObject *module, PyObject *arguments)
{
    Py_buffer b[4];
    long long version;
    if (!PyArg_ParseTuple(arguments, "y*Ly*w*w*", &b[0], &version, &b[1], &b[2], &b[3]))
        return NULL;
    int right = check(b[0].len == 2 * b[1].len && b[1].len == b[2].len && b[1].len == b[3].len, "versions and lists");
    Py_ssize_t count = 0;
    if (right) {
        const int64_t *changed_at = b[0].buf;
        const float *vector = b[1].buf;
        int32_t *columns = b[2].buf;
        float *picked = b[3].buf;
        for (Py_ssize_t j = 0; j < b[1].len / 4; j++) {
            columns[count] = (int32_t)j;
            picked[count] = vector[j];
            count += changed_at[j] > version;
        }
    }
    release(b, 4);
    return right ? PyLong_FromSsize_t(count) : NULL;
}

struct update {
    float *vector, *times;
    const float *curvatures;
    int64_t *changed_at, version;
    float factor, turns, turn_size, shrinking;
};

/* One column's part of an update, by the rule of ServerWeights. */
static inline void add_one(const struct update *to, Py_ssize_t j, float change)
{
    float gain = damped(to->curvatures[j] * to->turn_size, to->turns);
    to->changed_at[j] = to->version;
    to->times[j] += 1;
    float every = (float)to->version / to->times[j]; /* it is changed by one update in so many */
    to->vector[j] = to->vector[j] * (1 + (1 - gain) * to->shrinking * every) + gain * change * to->factor;
}

static PyObject *add_update(PyObject *module, PyObject *arguments)
{
    Py_buffer b[6];
    struct update to;
    long long version;
    if (!PyArg_ParseTuple(arguments, "w*w*w*y*z*y*Lffff", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &version, &to.factor,
                          &to.turns, &to.turn_size, &to.shrinking))
        return NULL;
    Py_ssize_t column_count = b[0].len / 4, values = b[5].len / 4, count = 0;
    int right = check(b[1].len == 2 * b[0].len && b[2].len == b[0].len && b[3].len == b[0].len, "vectors of the server")
        && columns_in_range(&b[4], values, column_count);
    if (right) {
        const int32_t *columns = b[4].buf;
        const float *changes = b[5].buf;
        to.vector = b[0].buf, to.changed_at = b[1].buf, to.times = b[2].buf, to.curvatures = b[3].buf, to.version = version;
        for (Py_ssize_t k = 0; k < values; k++)
            if (columns != NULL || changes[k] != 0) {
                add_one(&to, columns != NULL ? columns[k] : k, changes[k]);
                count++;
            }
    }
    release(b, 6);
    return right ? PyLong_FromSsize_t(count) : NULL;
}

/* base = values and local = values + (local - base), at the columns. */
static PyObject *take_in(PyObject *module, PyObject *arguments)
{
    Py_buffer b[4];
    if (!PyArg_ParseTuple(arguments, "z*y*w*w*", &b[0], &b[1], &b[2], &b[3]))
        return NULL;
    Py_ssize_t values = b[1].len / 4;
    int right = check(b[2].len == b[3].len, "base and local") && columns_in_range(&b[0], values, b[2].len / 4);
    if (right) {
        const int32_t *columns = b[0].buf;
        const float *heard = b[1].buf;
        float *base = b[2].buf, *local = b[3].buf;
        for (Py_ssize_t k = 0; k < values; k++) {
            Py_ssize_t j = columns != NULL ? columns[k] : k;
            local[j] = heard[k] + (local[j] - base[j]);
            base[j] = heard[k];
        }
    }
    release(b, 4);
    return right ? Py_NewRef(Py_None) : NULL;
}

PyMethodDef vector_methods[] = { /* of the module in _kernel.c */
    {"subtract", subtract, METH_VARARGS, NULL},
    {"merge", merge, METH_VARARGS, NULL},
    {"damping", damping, METH_VARARGS, NULL},
    {"blend", blend, METH_VARARGS, NULL},
    {"pick_changes", pick_changes, METH_VARARGS, NULL},
    {"pick_since", pick_since, METH_VARARGS, NULL},
    {"add_update", add_update, METH_VARARGS, NULL},
    {"take_in", take_in, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
