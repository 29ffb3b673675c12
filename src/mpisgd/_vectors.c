/* The loops over vectors of the weights: what an exchange does to every column.

   vector_loops.py is the only caller, says what each function computes, and has the same in NumPy where this file was not
   compiled; tests hold the two to each other. All vectors are float32, lists of columns int32. */

#include "_kernel.h"

struct subtracted {
    int32_t sent, changed; /* above the threshold; not 0 */
};

WITH_WIDE_VECTORS static struct subtracted subtract_all(const float *mine, const float *shared, float factor, float least,
                                                       float *changes, Py_ssize_t columns)
{
    int32_t sent = 0, changed = 0;
    #pragma omp simd reduction(+ : sent, changed)
    for (Py_ssize_t j = 0; j < columns; j++) {
        float change = (mine[j] - shared[j]) * factor;
        changes[j] = above(change, least);
        sent += changes[j] != 0;
        changed += change != 0;
    }
    return (struct subtracted){sent, changed};
}

/* The columns are trusted to be in range. */
static struct subtracted subtract_some(const float *mine, const float *shared, float factor, float least, float *changes,
                                       const int32_t *columns, Py_ssize_t count)
{
    struct subtracted found = {0, 0};
    for (Py_ssize_t p = 0; p < count; p++) {
        float change = (mine[columns[p]] - shared[columns[p]]) * factor;
        changes[p] = above(change, least);
        found.sent += changes[p] != 0;
        found.changed += change != 0;
    }
    return found;
}

/* The changes of all columns, or of the named ones. */
static PyObject *subtract(PyObject *module, PyObject *arguments)
{
    Py_buffer b[4];
    double scale, threshold;
    if (!PyArg_ParseTuple(arguments, "y*y*ddw*z*", &b[0], &b[1], &scale, &threshold, &b[2], &b[3]))
        return NULL;
    int right = check(b[0].len == b[1].len && b[2].len == (b[3].buf != NULL ? b[3].len : b[0].len), "weights and changes");
    struct subtracted found = {0, 0};
    float factor = (float)scale, least = (float)threshold;
    Py_ssize_t count = b[2].len / 4;
    if (right)
        found = b[3].buf != NULL ? subtract_some(b[0].buf, b[1].buf, factor, least, b[2].buf, b[3].buf, count)
                                 : subtract_all(b[0].buf, b[1].buf, factor, least, b[2].buf, count);
    release_all(b, 4);
    return right ? Py_BuildValue("ii", found.sent, found.changed) : NULL;
}

/* e^x of a small x, to float32's last bit. */
static float small_exp(float x)
{
    return 1 + x * (1 + x * (0.5f + x * (1.0f / 6 + x * (1.0f / 24))));
}

/* w = exp(g L) w + g d, with a gain g of each column. */
WITH_WIDE_VECTORS static void merge_each(float *weights, const float *gains, const float *changes, Py_ssize_t columns,
                                         float log_decay)
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
    release_all(b, 3);
    return right ? Py_NewRef(Py_None) : NULL;
}

WITH_WIDE_VECTORS static void damp_each(const float *curvatures, float turn_size, float turns, float *gains,
                                        Py_ssize_t columns)
{
    #pragma omp simd
    for (Py_ssize_t j = 0; j < columns; j++)
        gains[j] = damped(curvatures[j] * turn_size, turns);
}

static PyObject *damping(PyObject *module, PyObject *arguments)
{
    Py_buffer b[2];
    float turn_size, turns;
    if (!PyArg_ParseTuple(arguments, "y*ffw*", &b[0], &turn_size, &turns, &b[1]))
        return NULL;
    int right = check(b[0].len == b[1].len, "curvatures and gains");
    if (right)
        damp_each(b[0].buf, turn_size, turns, b[1].buf, b[0].len / 4);
    release_all(b, 2);
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
    release_all(b, 2);
    return right ? Py_NewRef(Py_None) : NULL;
}

PyMethodDef vector_methods[] = { /* of the module in _kernel.c */
    {"subtract", subtract, METH_VARARGS, NULL},
    {"merge", merge, METH_VARARGS, NULL},
    {"damping", damping, METH_VARARGS, NULL},
    {"blend", blend, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
