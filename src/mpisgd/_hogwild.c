/* Exchanges in memory that several processes share: a worker merges its own turn into the server's weights and takes in
   what the others did, with locks (_locks.c) that keep these from the same weights meanwhile.

   hogwild_loops.py is the only caller and says what each function does. Lists of columns are trusted to be in range. */

#include "_kernel.h"
#include <time.h>

enum { BLOCK = 512 }; /* columns */
enum { APART = 5 }; /* parts between where one worker begins and the next: of sixteen none with another */
enum { LINE_FLOATS = LINE / sizeof(float) };
enum { EXACT = 1 << 24 }; /* up to which a float counts how often a column changed: it counts no versions beyond, either */

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The columns first:stop. What is not sent stays ahead of the base. Returns how many weights were others than before.
   `folded` is what the worker's vectors are to be multiplied by, after its changes have been found: before, they could
   vanish. */
WITH_WIDE_VECTORS static Py_ssize_t exchange_part(const struct memory *memory, const struct update *to, Py_ssize_t first,
                                                  Py_ssize_t stop, float scale, float threshold, float folded,
                                                  double *record)
{
    const struct update by = *to; /* so that no store changes it */
    float *mine = memory->mine.buf, *base = memory->base.buf, gains = 0;
    int32_t sent = 0, changed = 0, heard = 0;
    #pragma omp simd reduction(+ : sent, changed, heard, gains)
    for (Py_ssize_t j = first; j < stop; j++) {
        float ahead = mine[j] - base[j], all = ahead * scale, change = above(all, threshold);
        gains += add_any(&by, j, change);
        float weight = by.vector[j];
        changed += all != 0;
        sent += change != 0;
        heard += weight != base[j] * folded;
        base[j] = weight;
        mine[j] = weight + (fabsf(all) <= threshold ? ahead : 0) * folded;
    }
    record[SENT] += sent, record[CHANGES] += changed, record[GAINS] += gains;
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

/* How many records there is room for. */
static int64_t room(const struct memory *memory)
{
    return memory->records.len / (Py_ssize_t)(RECORD_LENGTH * sizeof(double));
}

/* Multiplies a small scale into the server's vector, long before entries of size 1/scale overflow, when nobody is at it;
   returns the scale. */
static double fold(const struct memory *memory, double scale, double smallest)
{
    if (scale >= smallest)
        return scale;
    await_alone(memory->lock.buf);
    multiply_all(&memory->vector, scale);
    ((double *)memory->state.buf)[LOG_FOLDED] += log(scale);
    return 1;
}

/* If it is time for the average to take the weights in, notes after how many rows and returns their share, else 0; see
   averaging.Average. */
static double share_of_average(double *state, const struct rule *rule)
{
    double since = state[ROWS] - state[AVERAGED_ROWS];
    if (since < fmin(fmax(state[AVERAGED_ROWS], 1), rule->every_rows))
        return 0;
    state[AVERAGED_ROWS] = state[ROWS];
    return (1 + rule->lateness) * since / (state[ROWS] + rule->lateness * since);
}

struct merging { /* of a turn that is counted */
    struct update to;
    double version, share;   /* the weights' share of the average, 0: it does not take them in */
    float own_scale, folded; /* the worker's scale before; what its vectors are to be multiplied by */
};

/* With the lock: counts the turn, if there is room for its record. */
static enum outcome begin(const struct memory *memory, const struct rule *rule, const struct turn *turn, struct merging *m)
{
    double *state = memory->state.buf, *own = memory->own.buf, *record = memory->record.buf;
    if (state[VERSION] - state[COUNTED] >= (double)room(memory))
        return FULL;
    double decay = own[OWN_SCALE] / own[SCALE_SENT], scale = fold(memory, state[SCALE] * decay, rule->smallest_scale);
    record[STALENESS] = state[VERSION] - own[HEARD_VERSION];
    m->version = state[VERSION] += 1, state[ROWS] += record[TURN_ROWS], state[SCALE] = scale;
    float turns = (float)(1 + rule->stale_turns * record[STALENESS]);
    m->to = (struct update){
        .vector = memory->vector.buf, .times = memory->times.buf, .curvatures = memory->curvatures.buf,
        .version = (float)fmin(m->version, EXACT), .factor = (float)(1 / scale),
        .turns = turns, .reach = reach_of(turn->size, turns),
    };
    set_decay(&m->to, decay);
    m->own_scale = (float)own[OWN_SCALE], m->folded = (float)exp(state[LOG_FOLDED] - own[OWN_LOG_FOLDED]);
    m->share = share_of_average(state, rule);
    own[OWN_LOG_FOLDED] = state[LOG_FOLDED];
    own[HEARD_VERSION] = m->version, own[HEARD_ROWS] = state[ROWS];
    record[SENT] = record[CHANGES] = record[GAINS] = 0;
    return DONE;
}

/* The server's scale just now: who is counted later makes it smaller before it merges anything. So it is read after the
   weights that it belongs to. */
static double scale_now(const struct memory *memory)
{
    double scale;
    __atomic_load((double *)memory->state.buf + SCALE, &scale, __ATOMIC_ACQUIRE);
    return scale;
}

/* When the turn is merged: takes the scale of the weights that the worker now has, and leaves the turn's record, with so
   many places of its update, and weights heard. */
static void end(const struct memory *memory, const struct turn *turn, const struct merging *m, Py_ssize_t places,
                Py_ssize_t heard)
{
    double *own = memory->own.buf, *record = memory->record.buf, *records = memory->records.buf;
    own[OWN_SCALE] = own[SCALE_SENT] = scale_now(memory);
    record[BYTES_UP] = message_bytes((Py_ssize_t)record[SENT], places);
    record[MERGED_AT] = seconds();
    memcpy(records + (int64_t)m->version % room(memory) * RECORD_LENGTH, record, RECORD_LENGTH * sizeof(double));
    record[BYTES_DOWN] = turn->columns == NULL ? message_bytes(heard, places) : 4.0 * (double)heard; /* for the next */
}

static void average_part(const struct memory *memory, const struct merging *m, Py_ssize_t first, Py_ssize_t stop)
{
    if (m->share > 0)
        blend_in((float *)memory->average.buf + first, m->to.vector + first, stop - first, m->share, scale_now(memory));
}

/* The turn's columns, and those wanted; with the lock to the end, as this takes little longer than to take it. In a run
   where others exchange all columns it waits for them. */
static enum outcome exchange_keys(const struct memory *memory, const struct rule *rule, const struct turn *turn)
{
    struct locks *locks = memory->lock.buf;
    struct merging m;
    take(&locks->all);
    await_alone(locks);
    enum outcome outcome = begin(memory, rule, turn, &m);
    if (outcome == DONE) {
        Py_ssize_t heard = exchange_some(memory, turn, &m.to, m.own_scale, rule->threshold, m.folded, memory->record.buf);
        end(memory, turn, &m, turn->count, heard);
        average_part(memory, &m, 0, memory->average.len / 4);
    }
    give(&locks->all);
    return outcome;
}

/* Where a part of the columns begins: no cache line is of two. */
static Py_ssize_t part_begins(Py_ssize_t part, Py_ssize_t columns)
{
    return part == PARTS ? columns : columns * part / PARTS / LINE_FLOATS * LINE_FLOATS;
}

/* All columns, part by part, from a part on where others are not likely to be. A turn that was counted before may be merged
   into a part after this one: it is heard of with the next. */
static enum outcome exchange_all(const struct memory *memory, const struct rule *rule, const struct turn *turn)
{
    struct locks *locks = memory->lock.buf;
    struct merging m;
    take(&locks->all);
    enum outcome outcome = begin(memory, rule, turn, &m);
    if (outcome == DONE)
        enter(locks);
    give(&locks->all);
    if (outcome != DONE)
        return outcome;
    Py_ssize_t columns = memory->mine.len / 4, heard = 0;
    int64_t worker = (int64_t)((double *)memory->record.buf)[WORKER];
    for (int64_t k = 0; k < PARTS; k++) {
        Py_ssize_t part = (worker * APART + k) % PARTS;
        Py_ssize_t first = part_begins(part, columns), stop = part_begins(part + 1, columns);
        take(&locks->parts[part]);
        heard += exchange_part(memory, &m.to, first, stop, m.own_scale, rule->threshold, m.folded, memory->record.buf);
        average_part(memory, &m, first, stop);
        give(&locks->parts[part]);
    }
    end(memory, turn, &m, columns, heard);
    leave(locks);
    return DONE;
}

enum outcome exchange(const struct memory *memory, const struct rule *rule, const struct turn *turn)
{
    return turn->columns == NULL ? exchange_all(memory, rule, turn) : exchange_keys(memory, rule, turn);
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

PyMethodDef hogwild_methods[] = { /* of the module in _kernel.c */
    {"exchange_in_memory", exchange_in_memory, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
