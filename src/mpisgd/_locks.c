/* The lock of the weights that several processes share, and the processes' meetings, which take none.

   hogwild_loops.py is the only caller and says what each function does.

   Who exchanges all columns takes the lock for a moment to be counted in, and goes through the columns part by part, each
   with a lock of its own, from a part of its own on: so several exchange at once. Who wants the weights alone takes the
   lock, which keeps others from being counted in, and waits until those that are have left.

   Locks are POSIX mutexes: who waits for one sleeps until it is given up. Where processes share cores, one that has it
   may be waiting for a core, and those that polled for it instead would keep it from that for milliseconds. */

#include "_kernel.h"
#include <sched.h>
#include <time.h>

enum { TRIES = 64 }; /* for a lock that may be free in a moment, before sleeping */
enum { LOOKS = 64 }; /* for those who are counted in, letting others have the core, before sleeping */
enum { SLEEP = 20 }; /* us, about half of an exchange of text's columns */

int is_lock(const Py_buffer *buffer)
{
    return check(buffer->len >= (Py_ssize_t)sizeof(struct locks) && (uintptr_t)buffer->buf % sizeof(int64_t) == 0, "a lock");
}

static int try_take(union mutex_line *line)
{
    return pthread_mutex_trylock(&line->mutex) == 0;
}

void take(union mutex_line *line)
{
    for (int tries = 0; tries < TRIES; tries++)
        if (try_take(line))
            return;
    pthread_mutex_lock(&line->mutex);
}

void give(union mutex_line *line)
{
    pthread_mutex_unlock(&line->mutex);
}

void enter(struct locks *locks)
{
    __atomic_fetch_add(&locks->within.count, 1, __ATOMIC_ACQ_REL);
}

void leave(struct locks *locks)
{
    __atomic_fetch_sub(&locks->within.count, 1, __ATOMIC_ACQ_REL);
}

static int is_empty(struct locks *locks)
{
    return __atomic_load_n(&locks->within.count, __ATOMIC_ACQUIRE) == 0;
}

void await_alone(struct locks *locks)
{
    const struct timespec sleep = {0, SLEEP * 1000};
    for (int looks = 0; !is_empty(locks); looks++)
        if (looks < LOOKS)
            sched_yield();
        else
            nanosleep(&sleep, NULL);
}

static void make(union mutex_line *line)
{
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&line->mutex, &shared);
    pthread_mutexattr_destroy(&shared);
}

static int make_all(struct locks *locks)
{
    make(&locks->all);
    locks->within.count = 0;
    for (int part = 0; part < PARTS; part++)
        make(&locks->parts[part]);
    return 1;
}

static int take_alone(struct locks *locks)
{
    take(&locks->all);
    await_alone(locks);
    return 1;
}

static int try_all(struct locks *locks)
{
    return try_take(&locks->all);
}

static int give_all(struct locks *locks)
{
    give(&locks->all);
    return 1;
}

/* Does something to a lock, the only argument; returns what that returns. */
static PyObject *with_lock(PyObject *arguments, int (*act)(struct locks *))
{
    Py_buffer memory;
    if (!PyArg_ParseTuple(arguments, "w*", &memory))
        return NULL;
    int right = is_lock(&memory), done = right && act(memory.buf);
    PyBuffer_Release(&memory);
    return right ? PyBool_FromLong(done) : NULL;
}

static PyObject *make_lock(PyObject *module, PyObject *arguments)
{
    return with_lock(arguments, make_all);
}

static PyObject *take_lock(PyObject *module, PyObject *arguments)
{
    return with_lock(arguments, take_alone);
}

static PyObject *try_lock(PyObject *module, PyObject *arguments)
{
    return with_lock(arguments, try_all);
}

static PyObject *is_alone(PyObject *module, PyObject *arguments)
{
    return with_lock(arguments, is_empty);
}

static PyObject *give_lock(PyObject *module, PyObject *arguments)
{
    return with_lock(arguments, give_all);
}

/* Whether all processes from the first awaited one on have come to a meeting; their numbers lie `stride` apart. */
static int are_here(const int64_t *meetings, Py_ssize_t first, Py_ssize_t processes, Py_ssize_t stride, int64_t meeting)
{
    for (Py_ssize_t other = first; other < processes; other++)
        if (__atomic_load_n(&meetings[other * stride], __ATOMIC_ACQUIRE) < meeting)
            return 0;
    return 1;
}

static PyObject *meet(PyObject *module, PyObject *arguments)
{
    Py_buffer memory;
    Py_ssize_t stride, mine, first;
    long long meeting;
    int looks;
    if (!PyArg_ParseTuple(arguments, "w*nnLni", &memory, &stride, &mine, &meeting, &first, &looks))
        return NULL;
    Py_ssize_t processes = stride > 0 ? memory.len / 8 / stride : 0;
    int right = check(0 <= mine && mine < processes && 0 <= first && first <= processes, "meetings"), here = 0;
    if (right) {
        int64_t *meetings = memory.buf;
        __atomic_store_n(&meetings[mine * stride], meeting, __ATOMIC_RELEASE);
        for (here = are_here(meetings, first, processes, stride, meeting); !here && looks > 0; looks--) {
            sched_yield();
            here = are_here(meetings, first, processes, stride, meeting);
        }
    }
    PyBuffer_Release(&memory);
    return right ? PyBool_FromLong(here) : NULL;
}

PyMethodDef lock_methods[] = { /* of the module in _kernel.c */
    {"meet", meet, METH_VARARGS, NULL},
    {"make_lock", make_lock, METH_VARARGS, NULL},
    {"take_lock", take_lock, METH_VARARGS, NULL},
    {"try_lock", try_lock, METH_VARARGS, NULL},
    {"is_alone", is_alone, METH_VARARGS, NULL},
    {"give_lock", give_lock, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
