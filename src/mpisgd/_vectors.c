/* The loops over vectors of the weights: what an exchange does to every column.

   vector_loops.py is the only caller, says what each function computes, and has the same in NumPy where this file was not
   compiled; tests hold the two to each other. All vectors are float32. */

#include "_kernel.h"

enum { BLOCK = 1024 }; /* columns */

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

static PyObject *subtract(PyObject *module, PyObject *arguments)
{
    Py_buffer b[3];
    double scale, threshold;
    if (!PyArg_ParseTuple(arguments, "y*y*ddw*", &b[0], &b[1], &scale, &threshold, &b[2]))
        return NULL;
    int right = check(b[0].len == b[1].len && b[2].len == b[0].len, "weights and changes");
    struct subtracted found = {0, 0};
    if (right)
        found = subtract_all(b[0].buf, b[1].buf, (float)scale, (float)threshold, b[2].buf, b[2].len / 4);
    release_all(b, 3);
    return right ? Py_BuildValue("ii", found.sent, found.changed) : NULL;
}

struct merging { /* of the turns of a round, by the rule of merging.py */
    const float *curvatures;
    struct reach reach;
    float turns, shrinking;
};

struct merged { /* columns with changes, the gains of these added up; changes sent, and with those held back */
    double gains;
    int64_t columns, sent, changed;
};

/* w = w + g (d - s w), with the gain g of each column. */
WITH_WIDE_VECTORS static void merge_block(float *weights, const float *changes, const float *curvatures, Py_ssize_t columns,
                                          const struct merging *by, struct merged *merged)
{
    struct reach reach = by->reach;
    float turns = by->turns, shrinking = by->shrinking, gains = 0;
    int32_t count = 0;
    #pragma omp simd reduction(+ : gains, count)
    for (Py_ssize_t j = 0; j < columns; j++) {
        float gain = damped(curvatures[j], reach, turns);
        int32_t one = changes[j] != 0; /* factors of 0 and 1, here and below: branches are not vectorised */
        weights[j] += gain * (changes[j] - shrinking * weights[j]);
        gains += (float)one * gain;
        count += one;
    }
    merged->gains += gains, merged->columns += count;
}

/* Adds up what a worker sends, and leaves what it holds back in the place of its weights: 0 where it sends, but not a
   number where that is infinite. */
WITH_WIDE_VECTORS static void take_block(float *local, const float *weights, float scale, float threshold, float *sum,
                                         Py_ssize_t columns, struct merged *merged)
{
    int32_t sent = 0, changed = 0;
    #pragma omp simd reduction(+ : sent, changed)
    for (Py_ssize_t j = 0; j < columns; j++) {
        float all = (local[j] - weights[j]) * scale, sends = !(fabsf(all) <= threshold), change = sends * all;
        sum[j] += change;
        local[j] = all - change;
        sent += change != 0;
        changed += all != 0;
    }
    merged->sent += sent, merged->changed += changed;
}

WITH_WIDE_VECTORS static void add_block(float *local, const float *weights, Py_ssize_t columns)
{
    #pragma omp simd
    for (Py_ssize_t j = 0; j < columns; j++)
        local[j] += weights[j];
}

/* The columns start:stop of all workers' weights, which begin `stride` apart in `locals`: block by block, for the sum to
   stay in the nearest cache. */
static struct merged merge_columns(float *locals, Py_ssize_t stride, float *weights, Py_ssize_t start, Py_ssize_t stop,
                                   const double *shrinkings, float threshold, const struct merging *by)
{
    struct merged merged = {0};
    float sum[BLOCK];
    for (; start < stop; start += BLOCK) {
        Py_ssize_t columns = lesser(BLOCK, stop - start), workers = (Py_ssize_t)by->turns;
        memset(sum, 0, sizeof sum);
        for (Py_ssize_t k = 0; k < workers; k++)
            take_block(locals + k * stride + start, weights + start, (float)(1 - shrinkings[k]), threshold, sum, columns,
                       &merged);
        merge_block(weights + start, sum, by->curvatures + start, columns, by, &merged);
        for (Py_ssize_t k = 0; k < workers; k++)
            add_block(locals + k * stride + start, weights + start, columns);
    }
    return merged;
}

static PyObject *merge_turns(PyObject *module, PyObject *arguments)
{
    Py_buffer b[4];
    Py_ssize_t start, stop;
    struct merging by;
    struct merged merged;
    struct turn_size size;
    float threshold;
    if (!PyArg_ParseTuple(arguments, "w*w*nny*fy*(fff)", &b[0], &b[1], &start, &stop, &b[2], &threshold, &b[3], &size.all_rows,
                          &size.of_moved, &size.penalty))
        return NULL;
    Py_ssize_t columns = b[1].len / 4, workers = b[2].len / 8, stride = workers > 0 ? b[0].len / 4 / workers : 0;
    int right = check(workers > 0 && b[0].len == 4 * workers * stride && stride >= columns, "weights of all workers")
        && check(b[3].len == b[1].len, "weights and curvatures")
        && check(0 <= start && start <= stop && stop <= columns, "range of columns");
    if (right) {
        by.curvatures = b[3].buf, by.turns = (float)workers, by.shrinking = 0, by.reach = reach_of(size, by.turns);
        for (Py_ssize_t k = 0; k < workers; k++)
            by.shrinking += (float)((double *)b[2].buf)[k];
        merged = merge_columns(b[0].buf, stride, b[1].buf, start, stop, b[2].buf, threshold, &by);
    }
    release_all(b, 4);
    return right ? Py_BuildValue("LLLd", (long long)merged.sent, (long long)merged.changed, (long long)merged.columns,
                                 merged.gains)
                 : NULL;
}

static PyObject *merge(PyObject *module, PyObject *arguments)
{
    Py_buffer b[3];
    struct merging by;
    struct merged merged = {0};
    struct turn_size size;
    if (!PyArg_ParseTuple(arguments, "w*y*y*(fff)ff", &b[0], &b[1], &b[2], &size.all_rows, &size.of_moved, &size.penalty, &by.turns,
                          &by.shrinking))
        return NULL;
    int right = check(b[0].len == b[1].len && b[0].len == b[2].len, "weights, changes and curvatures");
    by.curvatures = b[2].buf, by.reach = reach_of(size, by.turns);
    for (Py_ssize_t start = 0; right && start < b[0].len / 4; start += BLOCK)
        merge_block((float *)b[0].buf + start, (const float *)b[1].buf + start, by.curvatures + start,
                    lesser(BLOCK, b[0].len / 4 - start), &by, &merged);
    release_all(b, 3);
    return right ? Py_BuildValue("Ld", (long long)merged.columns, merged.gains) : NULL;
}

void blend_in(float *average, const float *weights, Py_ssize_t columns, double share, double scale)
{
    float kept = (float)(1 - share), taken = (float)(share * scale);
    #pragma omp simd
    for (Py_ssize_t j = 0; j < columns; j++)
        average[j] = average[j] * kept + weights[j] * taken;
}

static PyObject *blend(PyObject *module, PyObject *arguments)
{
    Py_buffer b[2];
    double share, scale;
    if (!PyArg_ParseTuple(arguments, "w*y*dd", &b[0], &b[1], &share, &scale))
        return NULL;
    int right = check(b[0].len == b[1].len, "average and weights");
    if (right)
        blend_in(b[0].buf, b[1].buf, b[0].len / 4, share, scale);
    release_all(b, 2);
    return right ? Py_NewRef(Py_None) : NULL;
}

PyMethodDef vector_methods[] = { /* of the module in _kernel.c */
    {"subtract", subtract, METH_VARARGS, NULL},
    {"merge_turns", merge_turns, METH_VARARGS, NULL},
    {"merge", merge, METH_VARARGS, NULL},
    {"blend", blend, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
