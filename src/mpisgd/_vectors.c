/* The loops over vectors of the weights: what an exchange does to every column.

   vector_loops.py is the only caller, says what each function computes, and has the same in NumPy where this file was not
   compiled; tests hold the two to each other. All vectors are float32, lists of columns int32. */

#include "_kernel.h"

/* The change where it is above the threshold or not a number, else 0. */
static inline float above(float change, float threshold)
{
    return fabsf(change) <= threshold ? 0 : change;
}

/* The changes of all columns, or of the named ones, which are trusted to be in range; returns how many are above the
   threshold, and how many are not 0. */
static PyObject *subtract(PyObject *module, PyObject *arguments)
{
    Py_buffer b[4];
    double scale, threshold;
    if (!PyArg_ParseTuple(arguments, "y*y*ddw*z*", &b[0], &b[1], &scale, &threshold, &b[2], &b[3]))
        return NULL;
    int right = check(b[0].len == b[1].len && b[2].len == (b[3].buf != NULL ? b[3].len : b[0].len), "weights and changes");
    int32_t sent = 0, changed = 0;
    if (right) {
        const float *mine = b[0].buf, *shared = b[1].buf;
        const int32_t *columns = b[3].buf;
        float *changes = b[2].buf, factor = (float)scale, least = (float)threshold;
        if (columns != NULL) {
            for (Py_ssize_t p = 0; p < b[2].len / 4; p++) {
                float change = (mine[columns[p]] - shared[columns[p]]) * factor;
                changes[p] = above(change, least);
                sent += changes[p] != 0;
                changed += change != 0;
            }
        } else {
            #pragma omp simd reduction(+ : sent, changed)
            for (Py_ssize_t j = 0; j < b[2].len / 4; j++) {
                float change = (mine[j] - shared[j]) * factor;
                changes[j] = above(change, least);
                sent += changes[j] != 0;
                changed += change != 0;
            }
        }
    }
    release_all(b, 4);
    return right ? Py_BuildValue("ii", sent, changed) : NULL;
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
    release_all(b, 3);
    return right ? Py_NewRef(Py_None) : NULL;
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
