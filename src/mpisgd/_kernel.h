/* What the kernel's files share. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Before a function with a vectorised loop: where the compiler and the C library can choose at run time, it has a second
   version for processors with wider vectors, which computes the same bits. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WITH_WIDE_VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define WITH_WIDE_VECTORS
#endif

int check(int holds, const char *what); /* _kernel.c: raises ValueError unless it holds */
extern PyMethodDef vector_methods[];    /* _vectors.c */
extern PyMethodDef exchange_methods[];  /* _exchange.c */
extern PyMethodDef hogwild_methods[];   /* _hogwild.c */

static inline void release_all(Py_buffer *buffers, int count)
{
    for (int i = 0; i < count; i++)
        PyBuffer_Release(&buffers[i]);
}

/* (1 + a) / (1 + P a), the gain of one of P turns; written so that it is 1/P where a is infinite. */
static inline float damped(float a, float turns)
{
    float least = 1 / turns;
    return least + (1 - least) / (1 + turns * a);
}

/* The change where it is above the threshold or not a number, else 0. */
static inline float above(float change, float threshold)
{
    return fabsf(change) <= threshold ? 0 : change;
}

struct update { /* to the server's weights, by the rule of ServerWeights */
    float *vector, *times;
    const float *curvatures;
    float version, factor, turns, turn_size, shrinking;
};

/* One column's part of an update; returns the gain. One update in `version / times` changes it. */
static inline float add_one(const struct update *to, Py_ssize_t j, float change)
{
    float gain = damped(to->curvatures[j] * to->turn_size, to->turns);
    to->times[j] += 1;
    to->vector[j] = to->vector[j] * (1 + (1 - gain) * to->shrinking * (to->version / to->times[j]))
        + gain * change * to->factor;
    return gain;
}
