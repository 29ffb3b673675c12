/* Exchanges in memory that several processes share: a worker merges its own turn into the server's weights and takes in
   what the others did, with a lock that keeps these from the weights meanwhile.

   hogwild_loops.py is the only caller and says what each function does. Lists of columns are trusted to be in range.

   The lock is a POSIX mutex: who waits for it sleeps until it is given up. Where processes share cores, one that has it
   may be waiting for a core, and those that polled for it instead would keep it from that for milliseconds. */

#include "_kernel.h"
#include <pthread.h>

enum { TRIES = 64 }; /* for a lock that may be free in a moment, before sleeping */

/* The state, as hogwild_loops.STATE; the record, as turn_statistics.Record; the worker's own, as hogwild_loops.OWN. */
enum { VERSION, ROWS, SCALE, LOG_FOLDED, NEXT_ROWS, TAKEN, COUNTED };
enum { WORKER, TURN_ROWS, STALENESS, SENT, CHANGES, GAINS, BYTES_UP, BYTES_DOWN, RECORD_LENGTH = 13 };
enum { HEARD_VERSION, HEARD_ROWS, OWN_SCALE, SCALE_SENT, OWN_LOG_FOLDED, OWN_LENGTH };
enum outcome { DONE, FULL };

struct memory { /* what the processes share */
    pthread_mutex_t *lock;
    double *state, *records;
    int64_t room; /* for records */
};

struct turn {
    float *mine, *base;
    double *own;
    float threshold, step; /* step size x rows */
    const int32_t *columns, *wanted; /* NULL: all */
    Py_ssize_t count, wanted_count, columns_of_all;
};

static int is_lock(const Py_buffer *buffer)
{
    return check(buffer->len >= (Py_ssize_t)sizeof(pthread_mutex_t) && (uintptr_t)buffer->buf % sizeof(int64_t) == 0, "a lock");
}

static void take(pthread_mutex_t *lock)
{
    for (int tries = 0; tries < TRIES; tries++)
        if (pthread_mutex_trylock(lock) == 0)
            return;
    pthread_mutex_lock(lock);
}

/* All columns at once. What is not sent stays ahead of the base. Returns how many weights were others than before. */
WITH_WIDE_VECTORS static Py_ssize_t exchange_all(const struct turn *turn, const struct update *to, double *record)
{
    const struct update by = *to; /* so that no store changes it */
    float *mine = turn->mine, *base = turn->base, *weights = by.vector, *times = by.times;
    float scale = (float)turn->own[OWN_SCALE], threshold = turn->threshold, gains = 0;
    int32_t sent = 0, changed = 0, heard = 0;
    #pragma omp simd reduction(+ : sent, changed, heard, gains)
    for (Py_ssize_t j = 0; j < turn->count; j++) {
        float ahead = mine[j] - base[j], all = ahead * scale, change = above(all, threshold);
        float one = change != 0; /* instead of branches */
        float gain = damped(by.curvatures[j] * by.turn_size, by.turns);
        float every = by.version / (times[j] + 1);
        float weight = weights[j] * (1 + one * ((1 - gain) * by.shrinking * every)) + gain * change * by.factor;
        changed += all != 0;
        sent += change != 0;
        gains += one * gain;
        heard += weight != base[j];
        times[j] += one;
        weights[j] = weight;
        base[j] = weight;
        mine[j] = weight + (fabsf(all) <= threshold ? ahead : 0);
    }
    record[SENT] = sent, record[CHANGES] = changed, record[GAINS] = gains;
    return heard;
}

/* The changes of the turn's columns, and the weights of those that are wanted; returns how many these are. */
static Py_ssize_t exchange_some(const struct turn *turn, const struct update *to, double *record)
{
    float *mine = turn->mine, *base = turn->base, scale = (float)turn->own[OWN_SCALE];
    double gains = 0;
    int32_t sent = 0, changed = 0;
    for (Py_ssize_t p = 0; p < turn->count; p++) {
        Py_ssize_t j = turn->columns[p];
        float all = (mine[j] - base[j]) * scale, change = above(all, turn->threshold);
        changed += all != 0;
        if (change != 0) {
            gains += add_one(to, j, change);
            sent++;
            base[j] = mine[j];
        }
    }
    for (Py_ssize_t p = 0; p < turn->wanted_count; p++) {
        Py_ssize_t j = turn->wanted[p];
        float ahead = mine[j] - base[j];
        base[j] = to->vector[j];
        mine[j] = base[j] + ahead;
    }
    record[SENT] = sent, record[CHANGES] = changed, record[GAINS] = gains;
    return turn->wanted_count;
}

/* As pairs of a place and its value, or as values of all places. */
static double message_bytes(Py_ssize_t changes, Py_ssize_t places)
{
    return (double)(8 * changes < 4 * places ? 8 * changes : 4 * places);
}

static void multiply_all(float *vector, float factor, Py_ssize_t columns)
{
    for (Py_ssize_t j = 0; j < columns; j++)
        vector[j] *= factor;
}

/* Multiplies a small scale into the server's vector, long before entries of size 1/scale overflow, and so much of it into
   the worker's vectors as the server has by now; returns the server's scale. */
static double fold(double *state, double scale, double smallest, const struct update *to, const struct turn *turn)
{
    Py_ssize_t columns = turn->columns_of_all;
    if (scale < smallest) {
        multiply_all(to->vector, (float)scale, columns);
        state[LOG_FOLDED] += log(scale);
        scale = 1;
    }
    if (turn->own[OWN_LOG_FOLDED] != state[LOG_FOLDED]) {
        double factor = exp(state[LOG_FOLDED] - turn->own[OWN_LOG_FOLDED]);
        multiply_all(turn->mine, (float)factor, columns);
        multiply_all(turn->base, (float)factor, columns);
        turn->own[OWN_SCALE] /= factor;
        turn->own[OWN_LOG_FOLDED] = state[LOG_FOLDED];
    }
    return scale;
}

/* With the lock: merges the turn and leaves its record, if there is room for it. */
static enum outcome exchange_locked(const struct memory *memory, const struct turn *turn, struct update *to, double *record,
                                    double smallest_scale, double stale_turns)
{
    double *state = memory->state, *own = turn->own;
    if (state[VERSION] - state[COUNTED] >= (double)memory->room)
        return FULL;
    double decay = own[OWN_SCALE] / own[SCALE_SENT];
    double scale = fold(state, state[SCALE] * decay, smallest_scale, to, turn);
    record[STALENESS] = state[VERSION] - own[HEARD_VERSION];
    state[VERSION] += 1, state[ROWS] += record[TURN_ROWS], state[SCALE] = scale;
    to->version = (float)state[VERSION], to->factor = (float)(1 / scale), to->shrinking = (float)(1 - decay);
    to->turns = (float)(1 + stale_turns * record[STALENESS]), to->turn_size = turn->step;
    Py_ssize_t heard = turn->columns == NULL ? exchange_all(turn, to, record) : exchange_some(turn, to, record);
    record[BYTES_UP] = message_bytes((Py_ssize_t)record[SENT], turn->count);
    own[HEARD_VERSION] = state[VERSION], own[HEARD_ROWS] = state[ROWS], own[OWN_SCALE] = own[SCALE_SENT] = scale;
    memcpy(memory->records + (int64_t)state[VERSION] % memory->room * RECORD_LENGTH, record, RECORD_LENGTH * sizeof(double));
    record[BYTES_DOWN] = turn->columns == NULL ? message_bytes(heard, turn->count) : 4.0 * (double)heard; /* for the next */
    return DONE;
}

static PyObject *exchange_in_memory(PyObject *module, PyObject *arguments)
{
    Py_buffer b[12];
    struct update to;
    struct turn turn;
    double smallest_scale, stale_turns;
    if (!PyArg_ParseTuple(arguments, "w*w*w*w*w*w*w*w*w*y*z*z*ffdd", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &b[6], &b[7],
                          &b[8], &b[9], &b[10], &b[11], &turn.threshold, &turn.step, &smallest_scale, &stale_turns))
        return NULL;
    struct memory memory = {b[0].buf, b[1].buf, b[2].buf, b[2].len / (RECORD_LENGTH * (Py_ssize_t)sizeof(double))};
    turn.own = b[4].buf, turn.mine = b[5].buf, turn.base = b[6].buf;
    to.vector = b[7].buf, to.times = b[8].buf, to.curvatures = b[9].buf;
    turn.columns = b[10].buf, turn.wanted = b[11].buf;
    turn.columns_of_all = b[5].len / 4, turn.wanted_count = b[11].len / 4;
    turn.count = turn.columns != NULL ? b[10].len / 4 : turn.columns_of_all;
    int right = check((b[10].buf == NULL) == (b[11].buf == NULL), "columns") && is_lock(&b[0])
        && check(b[1].len >= (COUNTED + 1) * 8 && b[3].len == RECORD_LENGTH * 8 && b[4].len == OWN_LENGTH * 8, "state");
    for (int i = 6; i < 10; i++)
        right = right && check(b[i].len == b[5].len, "vectors");
    enum outcome outcome = FULL;
    if (right) {
        take(memory.lock);
        outcome = exchange_locked(&memory, &turn, &to, b[3].buf, smallest_scale, stale_turns);
        pthread_mutex_unlock(memory.lock);
    }
    release_all(b, 12);
    return right ? PyLong_FromLong(outcome) : NULL;
}

static PyObject *make_lock(PyObject *module, PyObject *arguments)
{
    Py_buffer memory;
    if (!PyArg_ParseTuple(arguments, "w*", &memory))
        return NULL;
    int right = is_lock(&memory);
    pthread_mutexattr_t shared;
    if (right) {
        pthread_mutexattr_init(&shared);
        pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
        right = check(pthread_mutex_init(memory.buf, &shared) == 0, "no lock to be had");
        pthread_mutexattr_destroy(&shared);
    }
    PyBuffer_Release(&memory);
    return right ? Py_NewRef(Py_None) : NULL;
}

static PyObject *take_lock(PyObject *module, PyObject *arguments)
{
    Py_buffer memory;
    if (!PyArg_ParseTuple(arguments, "w*", &memory))
        return NULL;
    int right = is_lock(&memory);
    if (right)
        take(memory.buf);
    PyBuffer_Release(&memory);
    return right ? Py_NewRef(Py_None) : NULL;
}

static PyObject *give_lock(PyObject *module, PyObject *arguments)
{
    Py_buffer memory;
    if (!PyArg_ParseTuple(arguments, "w*", &memory))
        return NULL;
    int right = is_lock(&memory);
    if (right)
        pthread_mutex_unlock(memory.buf);
    PyBuffer_Release(&memory);
    return right ? Py_NewRef(Py_None) : NULL;
}

PyMethodDef hogwild_methods[] = { /* of the module in _kernel.c */
    {"exchange_in_memory", exchange_in_memory, METH_VARARGS, NULL},
    {"make_lock", make_lock, METH_VARARGS, NULL},
    {"take_lock", take_lock, METH_VARARGS, NULL},
    {"give_lock", give_lock, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
