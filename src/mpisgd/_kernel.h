/* What the kernel's files share. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

int check(int holds, const char *what); /* _kernel.c: raises ValueError unless it holds */
extern PyMethodDef vector_methods[];    /* _vectors.c */
extern PyMethodDef exchange_methods[];  /* _exchange.c */

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
