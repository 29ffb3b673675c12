/* Exchanges in memory that several processes share: a worker merges its own turn into the server's weights and takes in
   what the others did, with a lock that keeps these from the weights meanwhile. And their meetings, without a lock.

   hogwild_loops.py is the only caller and says what each function does. Lists of columns are trusted to be in range.

   The lock is a POSIX mutex: who waits for it sleeps until it is given up. Where processes share cores, one that has it
   may be waiting for a core, and those that polled for it instead would keep it from that for milliseconds. */

#include "_kernel.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>

enum { BLOCK = 512 }; /* columns */
enum { TRIES = 64 }; /* for a lock that may be free in a moment, before sleeping */
enum { EXACT = 1 << 24 }; /* up to which a float counts how often a column changed: it counts no versions beyond, either */

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

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

/* All columns at once. What is not sent stays ahead of the base. Returns how many weights were others than before. `folded`
   is what the worker's vectors are to be multiplied by, after its changes have been found: before, they could vanish. */
WITH_WIDE_VECTORS static Py_ssize_t exchange_all(const struct memory *memory, const struct update *to, float scale,
                                                 float threshold, float folded, double *record)
{
    const struct update by = *to; /* so that no store changes it */
    float *mine = memory->mine.buf, *base = memory->base.buf, *weights = by.vector, *times = by.times, gains = 0;
    Py_ssize_t columns = memory->mine.len / 4;
    int32_t sent = 0, changed = 0, heard = 0;
    #pragma omp simd reduction(+ : sent, changed, heard, gains)
    for (Py_ssize_t j = 0; j < columns; j++) {
        float ahead = mine[j] - base[j], all = ahead * scale, change = above(all, threshold);
        float one = change != 0; /* instead of branches */
        float gain = damped(by.curvatures[j], by.reach, by.turns);
        float every = by.version / (times[j] + 1);
        float weight = weights[j] * (1 + one * ((1 - gain) * by.shrinking * every)) + gain * change * by.factor;
        changed += all != 0;
        sent += change != 0;
        gains += one * gain;
        heard += weight != base[j] * folded;
        times[j] += one;
        weights[j] = weight;
        base[j] = weight;
        mine[j] = weight + (fabsf(all) <= threshold ? ahead : 0) * folded;
    }
    record[SENT] = sent, record[CHANGES] = changed, record[GAINS] = gains;
    return heard;
}

static void multiply_all(const Py_buffer *vector, double factor)
{
    for (Py_ssize_t j = 0; j < vector->len / 4; j++)
        ((float *)vector->buf)[j] *= (float)factor;
}

struct changes { /* of some columns, those that are sent */
    int32_t columns[BLOCK];
    float by[BLOCK];
    int32_t sent, changed; /* with those held back */
};

/* Which columns changed is not to be guessed by the processor: each is written, and moved on from where it is sent. */
static void find_changes(const float *mine, const float *base, const int32_t *columns, Py_ssize_t count, float scale,
                         float threshold, struct changes *found)
{
    int32_t sent = 0, changed = 0;
    for (Py_ssize_t p = 0; p < count; p++) {
        float all = (mine[columns[p]] - base[columns[p]]) * scale;
        found->columns[sent] = columns[p], found->by[sent] = all;
        changed += all != 0;
        sent += (all != 0) & !(fabsf(all) <= threshold);
    }
    found->sent = sent, found->changed = changed;
}

/* The changes of the turn's columns, and the weights of those that are wanted; returns how many these are. */
static Py_ssize_t exchange_some(const struct memory *memory, const struct turn *turn, const struct update *to, float scale,
                                float threshold, float folded, double *record)
{
    const struct update by = *to; /* so that no store changes it */
    float *mine = memory->mine.buf, *base = memory->base.buf;
    struct changes found;
    record[SENT] = record[CHANGES] = record[GAINS] = 0;
    for (Py_ssize_t start = 0; start < turn->count; start += BLOCK) {
        float gains = 0;
        find_changes(mine, base, turn->columns + start, lesser(BLOCK, turn->count - start), scale, threshold, &found);
        for (int32_t k = 0; k < found.sent; k++) {
            gains += add_one(&by, found.columns[k], found.by[k]);
            base[found.columns[k]] = mine[found.columns[k]];
        }
        record[SENT] += found.sent, record[CHANGES] += found.changed, record[GAINS] += gains;
    }
    if (folded != 1) {
        multiply_all(&memory->mine, folded);
        multiply_all(&memory->base, folded);
    }
    for (Py_ssize_t p = 0; p < turn->wanted_count; p++) {
        Py_ssize_t j = turn->wanted[p];
        float weight = by.vector[j], ahead = mine[j] - base[j];
        base[j] = weight;
        mine[j] = weight + ahead;
    }
    return turn->wanted_count;
}

/* As pairs of a place and its value, or as values of all places. */
static double message_bytes(Py_ssize_t changes, Py_ssize_t places)
{
    return (double)(8 * changes < 4 * places ? 8 * changes : 4 * places);
}

/* Multiplies a small scale into the server's vector, long before entries of size 1/scale overflow; returns the scale. */
static double fold(const struct memory *memory, double scale, double smallest)
{
    if (scale >= smallest)
        return scale;
    multiply_all(&memory->vector, scale);
    ((double *)memory->state.buf)[LOG_FOLDED] += log(scale);
    return 1;
}

/* Lets the average take the weights in, if it is time; see averaging.Average. */
static void take_average(const struct memory *memory, const struct rule *rule)
{
    double *state = memory->state.buf;
    if (state[ROWS] < state[NEXT_ROWS])
        return;
    state[NEXT_ROWS] = state[ROWS] + fmin(fmax(state[ROWS], 1), rule->every_rows);
    state[TAKEN] += 1;
    blend_in(memory->average.buf, memory->vector.buf, memory->average.len / 4,
             (1 + rule->lateness) / (state[TAKEN] + rule->lateness), state[SCALE]);
}

/* With the lock: merges the turn and leaves its record, if there is room for it. */
static enum outcome exchange_locked(const struct memory *memory, const struct rule *rule, const struct turn *turn)
{
    double *state = memory->state.buf, *own = memory->own.buf, *record = memory->record.buf, *records = memory->records.buf;
    int64_t room = memory->records.len / (Py_ssize_t)(RECORD_LENGTH * sizeof(double));
    if (state[VERSION] - state[COUNTED] >= (double)room)
        return FULL;
    double decay = own[OWN_SCALE] / own[SCALE_SENT];
    double scale = fold(memory, state[SCALE] * decay, rule->smallest_scale);
    record[STALENESS] = state[VERSION] - own[HEARD_VERSION];
    state[VERSION] += 1, state[ROWS] += record[TURN_ROWS], state[SCALE] = scale;
    float turns = (float)(1 + rule->stale_turns * record[STALENESS]);
    struct update to = {
        .vector = memory->vector.buf, .times = memory->times.buf, .curvatures = memory->curvatures.buf,
        .version = (float)fmin(state[VERSION], EXACT), .factor = (float)(1 / scale),
        .turns = turns, .reach = reach_of(turn->size, turns), .shrinking = (float)(1 - decay),
    };
    float own_scale = (float)own[OWN_SCALE], folded = (float)exp(state[LOG_FOLDED] - own[OWN_LOG_FOLDED]);
    own[OWN_LOG_FOLDED] = state[LOG_FOLDED];
    Py_ssize_t heard, places = turn->columns != NULL ? turn->count : memory->mine.len / 4;
    if (turn->columns == NULL)
        heard = exchange_all(memory, &to, own_scale, rule->threshold, folded, record);
    else
        heard = exchange_some(memory, turn, &to, own_scale, rule->threshold, folded, record);
    record[BYTES_UP] = message_bytes((Py_ssize_t)record[SENT], places);
    own[HEARD_VERSION] = state[VERSION], own[HEARD_ROWS] = state[ROWS], own[OWN_SCALE] = own[SCALE_SENT] = scale;
    record[MERGED_AT] = seconds();
    memcpy(records + (int64_t)state[VERSION] % room * RECORD_LENGTH, record, RECORD_LENGTH * sizeof(double));
    take_average(memory, rule);
    record[BYTES_DOWN] = turn->columns == NULL ? message_bytes(heard, places) : 4.0 * (double)heard; /* for the next */
    return DONE;
}

enum outcome exchange(const struct memory *memory, const struct rule *rule, const struct turn *turn)
{
    take(memory->lock.buf);
    enum outcome outcome = exchange_locked(memory, rule, turn);
    pthread_mutex_unlock(memory->lock.buf);
    return outcome;
}

static int fit_together(const struct memory *memory)
{
    Py_ssize_t length = memory->mine.len, number = sizeof(double);
    return is_lock(&memory->lock) && check(memory->state.len == STATE_LENGTH * number, "state")
        && check(memory->own.len == OWN_LENGTH * number, "the worker's state")
        && check(memory->record.len == RECORD_LENGTH * number, "record")
        && check(memory->records.len >= RECORD_LENGTH * number, "records")
        && check(memory->base.len == length && memory->vector.len == length && memory->times.len == length
                     && memory->average.len == length && memory->curvatures.len == length,
                 "vectors");
}

int open_memory(PyObject *tuple, struct memory *m)
{
    return PyArg_ParseTuple(tuple, "w*w*w*w*w*w*w*w*w*w*y*", &m->lock, &m->state, &m->records, &m->record, &m->own, &m->mine,
                            &m->base, &m->vector, &m->times, &m->average, &m->curvatures)
        && fit_together(m);
}

int open_rule(PyObject *tuple, struct rule *rule)
{
    return PyArg_ParseTuple(tuple, "fddddd", &rule->threshold, &rule->smallest_scale, &rule->stale_turns, &rule->curved_by_moved,
                            &rule->every_rows, &rule->lateness);
}

void release_memory(struct memory *memory)
{
    release_all(&memory->lock, sizeof(struct memory) / sizeof(Py_buffer));
}

static PyObject *exchange_in_memory(PyObject *module, PyObject *arguments)
{
    struct memory memory = {0};
    struct rule rule;
    struct turn turn;
    Py_buffer columns, wanted;
    PyObject *of_memory, *of_rule;
    if (!PyArg_ParseTuple(arguments, "O!O!z*z*(fff)", &PyTuple_Type, &of_memory, &PyTuple_Type, &of_rule, &columns, &wanted,
                          &turn.size.all_rows, &turn.size.of_moved, &turn.size.penalty))
        return NULL;
    turn.columns = columns.buf, turn.count = columns.len / 4, turn.wanted = wanted.buf, turn.wanted_count = wanted.len / 4;
    int right = open_memory(of_memory, &memory) && open_rule(of_rule, &rule)
        && check((columns.buf == NULL) == (wanted.buf == NULL), "columns");
    enum outcome outcome = right ? exchange(&memory, &rule, &turn) : FULL;
    PyBuffer_Release(&columns);
    PyBuffer_Release(&wanted);
    release_memory(&memory);
    return right ? PyLong_FromLong(outcome) : NULL;
}

/* Does something to a lock, the only argument. */
static PyObject *with_lock(PyObject *arguments, void (*act)(pthread_mutex_t *))
{
    Py_buffer memory;
    if (!PyArg_ParseTuple(arguments, "w*", &memory))
        return NULL;
    int right = is_lock(&memory);
    if (right)
        act(memory.buf);
    PyBuffer_Release(&memory);
    return right ? Py_NewRef(Py_None) : NULL;
}

static void make(pthread_mutex_t *lock)
{
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(lock, &shared);
    pthread_mutexattr_destroy(&shared);
}

static PyObject *try_lock(PyObject *module, PyObject *arguments)
{
    Py_buffer memory;
    if (!PyArg_ParseTuple(arguments, "w*", &memory))
        return NULL;
    int right = is_lock(&memory), taken = right && pthread_mutex_trylock(memory.buf) == 0;
    PyBuffer_Release(&memory);
    return right ? PyBool_FromLong(taken) : NULL;
}

static void give(pthread_mutex_t *lock)
{
    pthread_mutex_unlock(lock);
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

static PyObject *make_lock(PyObject *module, PyObject *arguments)
{
    return with_lock(arguments, make);
}

static PyObject *take_lock(PyObject *module, PyObject *arguments)
{
    return with_lock(arguments, take);
}

static PyObject *give_lock(PyObject *module, PyObject *arguments)
{
    return with_lock(arguments, give);
}

PyMethodDef hogwild_methods[] = { /* of the module in _kernel.c */
    {"exchange_in_memory", exchange_in_memory, METH_VARARGS, NULL},
    {"meet", meet, METH_VARARGS, NULL},
    {"make_lock", make_lock, METH_VARARGS, NULL},
    {"take_lock", take_lock, METH_VARARGS, NULL},
    {"try_lock", try_lock, METH_VARARGS, NULL},
    {"give_lock", give_lock, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
