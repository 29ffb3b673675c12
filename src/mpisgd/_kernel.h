/* What the kernel's files share. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

/* Before a function with a vectorised loop: where the compiler and the C library can choose at run time, it has a second
   version for processors with wider vectors, which computes the same bits but for sums of floats. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WITH_WIDE_VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define WITH_WIDE_VECTORS
#endif

#pragma GCC visibility push(hidden) /* what the files share is no one else's */

int check(int holds, const char *what); /* _kernel.c: raises ValueError unless it holds */
extern PyMethodDef vector_methods[];    /* _vectors.c */
extern PyMethodDef exchange_methods[];  /* _exchange.c */
extern PyMethodDef lock_methods[];      /* _locks.c */
extern PyMethodDef hogwild_methods[];   /* _hogwild.c */
extern PyMethodDef turn_methods[];      /* _turns.c */

/* --- rows, _kernel.c */

enum loss { HINGE, SQUARED_HINGE, LOGISTIC };

struct rows {
    Py_buffer pointers, columns, values;
    int wide;   /* pointers are int64 */
    int narrow; /* columns are uint16 */
    int64_t count;
};

struct learning {
    float *weights;
    double scale, step_size, regularization, bias_step;
    int64_t bias;  /* its place among the weights, or -1 */
    int64_t moved; /* rows that have taken a step, counted up */
    enum loss loss;
};

int complete(struct rows *rows); /* finds what follows from the buffers, raises ValueError if they do not fit */
int open_rows(PyObject *tuple, struct rows *rows); /* compiled_loops.Rows, see "Tuples" below */
void release(struct rows *rows);
/* Takes one mini-batch step on the rows start:stop; `margins` has room for the batch. */
void step(const struct rows *rows, const float *labels, const float *squared_norms, int64_t start, int64_t stop,
          float *margins, struct learning *to);

/* What has it is compiled twice, for each width of columns. */
#define INLINE static inline __attribute__((always_inline))

INLINE int64_t column(const void *columns, int narrow, int64_t k)
{
    return narrow ? ((const uint16_t *)columns)[k] : ((const int32_t *)columns)[k];
}

static inline int64_t lesser(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t pointer(const struct rows *rows, int64_t i)
{
    return rows->wide ? ((const int64_t *)rows->pointers.buf)[i] : ((const int32_t *)rows->pointers.buf)[i];
}

/* Where the keys of each turn end, int64: one number more than turns. */
static inline int fit_turns(const struct rows *rows, Py_ssize_t turn_rows, const Py_buffer *ends)
{
    return check(turn_rows >= 1 && ends->len / 8 == (rows->count + turn_rows - 1) / turn_rows + 1, "ends");
}

/* --- weights */

static inline void release_all(Py_buffer *buffers, int count)
{
    for (int i = 0; i < count; i++)
        PyBuffer_Release(&buffers[i]);
}

struct turn_size { /* vector_loops.TurnSize */
    float all_rows, of_moved, penalty;
};

struct reach { /* how far a turn goes along a weight: curvature x curved + penalty */
    float curved, penalty;
};

static inline struct reach reach_of(struct turn_size size, float turns)
{
    return (struct reach){fminf(size.all_rows, turns * size.of_moved), size.penalty};
}

/* (1 + a) / (1 + P a), the gain of one of P turns that go a along a weight; written so that it is 1/P where a is infinite. */
static inline float damped(float curvature, struct reach reach, float turns)
{
    float a = curvature * reach.curved + reach.penalty, least = 1 / turns;
    return least + (1 - least) / (1 + turns * a);
}

/* The change where it is above the threshold or not a number, else 0. */
static inline float above(float change, float threshold)
{
    return fabsf(change) <= threshold ? 0 : change;
}

#define MOST_LOST 1e30 /* as in exchange_loops */

struct update { /* to the server's weights, by the rule of ServerWeights */
    float *vector, *times;
    const float *curvatures;
    struct reach reach;
    float version, factor, turns, lost, shrinking; /* the last two by `set_decay` */
};

/* What the update's penalty took of every weight, as a share of what it left, and as a share of what there was. */
static inline void set_decay(struct update *to, double decay)
{
    to->lost = (float)fmin(1 / decay - 1, MOST_LOST), to->shrinking = (float)(1 - decay);
}

/* What a weight gets back of that, as a share of what is left, where one update in `every` changes it. */
INLINE float given_back(const struct update *to, float gain, float every)
{
    return (1 - gain) * (to->lost + (every - 1) * to->shrinking);
}

/* One column's part of an update; returns the gain. One update in `version / times` changes it. */
static inline float add_one(const struct update *to, Py_ssize_t j, float change)
{
    to->times[j] += 1;
    if (to->turns == 1) { /* the gain is 1: no division is worth that */
        to->vector[j] += change * to->factor;
        return 1;
    }
    float gain = damped(to->curvatures[j], to->reach, to->turns);
    float back = given_back(to, gain, to->version / to->times[j]);
    to->vector[j] = to->vector[j] * (1 + back) + gain * change * to->factor;
    return gain;
}

/* The same of any change, 0 as well, without branches: for loops that take several columns at once. The gain of no change
   is 0; gains are numbers, as curvatures are finite (beginning.py). */
INLINE float add_any(const struct update *to, Py_ssize_t j, float change)
{
    float one = change != 0; /* instead of branches */
    float gain = damped(to->curvatures[j], to->reach, to->turns);
    float back = given_back(to, gain, to->version / (to->times[j] + 1));
    to->times[j] += one;
    to->vector[j] = to->vector[j] * (1 + one * back) + gain * change * to->factor;
    return one * gain;
}

/* average = average + share (scale w - average), _vectors.c */
void blend_in(float *average, const float *weights, Py_ssize_t columns, double share, double scale);

/* --- locks in memory that processes share, _locks.c */

enum { LINE = 64 };  /* bytes of a cache line */
enum { PARTS = 16 }; /* of the columns */

union mutex_line {
    pthread_mutex_t mutex;
    char line[LINE];
};

struct locks { /* each on a cache line of its own */
    union mutex_line all;
    union {
        int64_t count;
        char line[LINE];
    } within; /* how many exchange all columns just now */
    union mutex_line parts[PARTS];
};

int is_lock(const Py_buffer *buffer); /* raises ValueError unless it has room for one */
void take(union mutex_line *line);
void give(union mutex_line *line);
/* Be counted in, with the lock `all`; and out. */
void enter(struct locks *locks);
void leave(struct locks *locks);
/* With the lock `all`, so that nobody comes in: waits until nobody is counted in. */
void await_alone(struct locks *locks);

/* --- exchanges in memory, _hogwild.c */

/* hogwild_loops.State, turn_statistics.Record and hogwild_loops.Own. */
enum { VERSION, ROWS, SCALE, LOG_FOLDED, AVERAGED_ROWS, COUNTED, STATE_LENGTH };
enum { WORKER, TURN_ROWS, MOVED, STALENESS, SENT, CHANGES, GAINS, BYTES_UP, BYTES_DOWN, ROUND_TRIP, COMPUTING, WAITING, AHEAD,
       MERGED_AT, RECORD_LENGTH };
enum { HEARD_VERSION, HEARD_ROWS, OWN_SCALE, SCALE_SENT, OWN_LOG_FOLDED, OWN_LENGTH };
enum outcome { DONE, FULL };

struct memory { /* what a worker has of the memory, and its own weights; the buffers are in this order */
    Py_buffer lock, state, records, record, own, mine, base, vector, times, average, curvatures;
};

struct rule { /* of an exchange */
    float threshold;
    double smallest_scale, stale_turns, curved_by_moved, every_rows, lateness;
};

struct turn {
    const int32_t *columns, *wanted; /* NULL: all */
    Py_ssize_t count, wanted_count;
    struct turn_size size;
};

/* Tuples are taken apart one by one: buffers in nested ones are more than PyArg_ParseTuple has room for. What is opened
   must be all zeros before and is released in any case; if something does not fit, an exception is raised. */
int open_memory(PyObject *tuple, struct memory *memory);
int open_rule(PyObject *tuple, struct rule *rule);
void release_memory(struct memory *memory);
double seconds(void); /* by the clock of Python's time.perf_counter */
/* Merges a turn as hogwild_loops.exchange says. */
enum outcome exchange(const struct memory *memory, const struct rule *rule, const struct turn *turn);

#pragma GCC visibility pop
