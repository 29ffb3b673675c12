/* Turns by keys, several in one call: short turns take less time than Python does to see to one.

   hogwild_loops.py is the only caller and says what each function does. */

#include "_kernel.h"

struct pass { /* over a shard, turn by turn */
    struct rows rows;
    Py_buffer labels, squared_norms, margins, keys, ends;
    Py_ssize_t batch_size, turn_rows;
    double learning_rate, decay, power, learning_rows;
    struct learning learning;
};

static double turn_of_steps(struct pass *pass, Py_ssize_t number, double scale)
{
    int64_t first = number * pass->turn_rows, stop = lesser(first + pass->turn_rows, pass->rows.count);
    pass->learning.scale = scale, pass->learning.moved = 0;
    for (int64_t start = first; start < stop; start += pass->batch_size)
        step(&pass->rows, pass->labels.buf, pass->squared_norms.buf, start, lesser(start + pass->batch_size, stop),
             pass->margins.buf, &pass->learning);
    return (double)(stop - first);
}

static void find_keys(const struct pass *pass, Py_ssize_t number, struct turn *turn)
{
    const int64_t *ends = pass->ends.buf;
    Py_ssize_t turns = pass->ends.len / 8 - 1, next = (number + 1) % turns;
    turn->columns = (const int32_t *)pass->keys.buf + ends[number], turn->count = ends[number + 1] - ends[number];
    turn->wanted = (const int32_t *)pass->keys.buf + ends[next], turn->wanted_count = ends[next + 1] - ends[next];
}

/* Counts a turn of this worker; returns how many it is ahead of the slowest. */
static double tick(const Py_buffer *clocks, Py_ssize_t worker)
{
    int64_t *turns = clocks->buf, slowest = ++turns[worker - 1];
    for (Py_ssize_t other = 0; other < clocks->len / 8; other++)
        slowest = turns[other] < slowest ? turns[other] : slowest;
    return (double)(turns[worker - 1] - slowest);
}

static int open_batches(PyObject *tuple, struct pass *pass)
{
    return PyArg_ParseTuple(tuple, "y*y*nw*", &pass->labels, &pass->squared_norms, &pass->batch_size, &pass->margins)
        && check(pass->labels.len == 4 * pass->rows.count, "labels")
        && check(pass->squared_norms.len == 4 * pass->rows.count, "squared norms")
        && check(pass->batch_size >= 1 && pass->margins.len >= 4 * pass->batch_size, "batch size");
}

static int open_steps(PyObject *tuple, const Py_buffer *weights, struct pass *pass)
{
    int loss, has_bias;
    struct learning *to = &pass->learning;
    if (!PyArg_ParseTuple(tuple, "dddddidp", &pass->learning_rate, &pass->decay, &pass->power, &pass->learning_rows,
                          &to->regularization, &loss, &to->bias_step, &has_bias))
        return 0;
    to->weights = weights->buf, to->loss = (enum loss)loss, to->bias = has_bias ? weights->len / 4 - 1 : -1;
    return check(loss >= HINGE && loss <= LOGISTIC, "loss");
}

static int open_keys(PyObject *tuple, struct pass *pass)
{
    return PyArg_ParseTuple(tuple, "y*y*n", &pass->keys, &pass->ends, &pass->turn_rows)
        && fit_turns(&pass->rows, pass->turn_rows, &pass->ends);
}

/* As merging.turn_size. */
static struct turn_size size_of(const struct learning *by, const double *record, const struct rule *rule)
{
    if (rule->curved_by_moved == 0)
        return (struct turn_size){0, 0, 0};
    double rows = by->step_size * record[TURN_ROWS], moved = by->step_size * (rule->curved_by_moved * record[MOVED]);
    return (struct turn_size){(float)fmin(rows, FLT_MAX), (float)fmin(moved, FLT_MAX), (float)(rows * by->regularization)};
}

/* As schedule.Schedule.step_size. */
static double step_size(const struct pass *pass, double rows)
{
    return pass->learning_rate / pow(1 + pass->decay * (rows / pass->learning_rows), pass->power);
}

/* One turn and its exchange. */
static enum outcome take_turn(struct pass *pass, Py_ssize_t number, const struct memory *memory, const struct rule *rule,
                              const Py_buffer *clocks)
{
    double *own = memory->own.buf, *record = memory->record.buf, began = seconds();
    struct turn turn;
    pass->learning.step_size = step_size(pass, own[HEARD_ROWS]);
    record[TURN_ROWS] = turn_of_steps(pass, number, own[OWN_SCALE]), record[MOVED] = (double)pass->learning.moved;
    own[OWN_SCALE] = pass->learning.scale;
    double ended = seconds();
    record[COMPUTING] = ended - began;
    find_keys(pass, number, &turn);
    turn.size = size_of(&pass->learning, record, rule);
    if (exchange(memory, rule, &turn) == FULL)
        return FULL;
    record[AHEAD] = tick(clocks, (Py_ssize_t)record[WORKER]); /* these are for the next record */
    record[ROUND_TRIP] = seconds() - ended, record[WAITING] = 0;
    return DONE;
}

static PyObject *take_turns(PyObject *module, PyObject *arguments)
{
    PyObject *of[6];
    struct pass pass = {0};
    struct memory memory = {0};
    struct rule rule;
    Py_buffer clocks, stop;
    Py_ssize_t number;
    double until;
    PyTypeObject *tuple = &PyTuple_Type;
    if (!PyArg_ParseTuple(arguments, "O!O!O!O!O!O!w*y*nd", tuple, &of[0], tuple, &of[1], tuple, &of[2], tuple, &of[3], tuple,
                          &of[4], tuple, &of[5], &clocks, &stop, &number, &until))
        return NULL;
    int right = open_rows(of[0], &pass.rows) && open_batches(of[1], &pass) && open_keys(of[3], &pass)
        && open_memory(of[4], &memory) && open_steps(of[2], &memory.mine, &pass) && open_rule(of[5], &rule)
        && check(stop.len >= 8 && number >= 0, "the word to stop");
    double *own = memory.own.buf, *record = memory.record.buf;
    right = right && check(record[WORKER] >= 1 && record[WORKER] <= (double)(clocks.len / 8), "worker");
    enum outcome outcome = DONE;
    int goes_on = right;
    while (goes_on && number < pass.ends.len / 8 - 1) {
        outcome = take_turn(&pass, number, &memory, &rule, &clocks);
        number += outcome == DONE;
        goes_on = outcome == DONE && own[HEARD_ROWS] < until && *(volatile int64_t *)stop.buf == 0;
    }
    release(&pass.rows);
    release_memory(&memory);
    Py_buffer others[] = {pass.labels, pass.squared_norms, pass.margins, pass.keys, pass.ends, clocks, stop};
    release_all(others, 7);
    return right ? Py_BuildValue("ni", number, (int)outcome) : NULL;
}

PyMethodDef turn_methods[] = { /* of the module in _kernel.c */
    {"take_turns", take_turns, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
