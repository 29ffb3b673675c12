/* The loops of the asynchronous exchange: between a worker's weights and its messages, and between these and the server's;
   and which columns a turn exchanges.

   exchange_loops.py is the only caller, says what each function computes, and has the same in NumPy where this file was
   not compiled; tests hold the two to each other.

   A message's content is float32 values, one for each place, or pairs of a place and its value. Place p is the column
   columns[p] or, without a list of columns, p itself. Lists of columns are trusted to be distinct and in range: who
   remembers one has looked at it. Places come from elsewhere, and are looked at before anything is written. */

#include "_kernel.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "messages and flags are read as little-endian"
#endif

enum { BLOCK = 4096 }; /* columns: what is found of them stays in the nearest cache, and takes 20 KB of the stack */

struct pair {
    int32_t place;
    float value;
};

struct content {
    const struct pair *pairs; /* NULL: values */
    const float *values;
    Py_ssize_t count;
    const int32_t *columns; /* NULL: all, in order */
};

static inline Py_ssize_t column_at(const struct content *of, Py_ssize_t k)
{
    Py_ssize_t place = of->pairs != NULL ? of->pairs[k].place : k;
    return of->columns != NULL ? of->columns[place] : place;
}

static inline float value_at(const struct content *of, Py_ssize_t k)
{
    return of->pairs != NULL ? of->pairs[k].value : of->values[k];
}

static int open_content(struct content *to, const Py_buffer *columns, const Py_buffer *content, Py_ssize_t column_count)
{
    Py_ssize_t places = columns->buf != NULL ? columns->len / 4 : column_count;
    to->columns = columns->buf;
    to->values = content->buf;
    to->pairs = content->itemsize == sizeof(struct pair) ? content->buf : NULL;
    to->count = content->len / content->itemsize;
    if (to->pairs == NULL)
        return check(to->count == places, "a value for each place");
    uint32_t largest = 0;
    for (Py_ssize_t k = 0; k < to->count; k++)
        largest = (uint32_t)to->pairs[k].place > largest ? (uint32_t)to->pairs[k].place : largest;
    return check(to->count == 0 || largest < (uint64_t)places, "place out of range");
}

/* Writes the places of the ones among so many flags, a multiple of eight, numbered from `first`; returns how many. */
static Py_ssize_t find_ones(const uint8_t *flags, Py_ssize_t count, int32_t first, int32_t *places)
{
    Py_ssize_t found = 0;
    for (Py_ssize_t j = 0; j < count; j += 8) {
        uint64_t eight; /* the first of them lowest */
        memcpy(&eight, flags + j, 8);
        for (; eight != 0; eight &= eight - 1)
            places[found++] = first + (int32_t)j + (__builtin_ctzll(eight) >> 3);
    }
    return found;
}

struct unsent { /* changes of a worker's weights since its last update: how far `mine` is ahead of `base`, by a factor */
    const float *mine;
    float *base;
    float factor, threshold;
    const int32_t *columns; /* NULL: all */
    Py_ssize_t places;
};

static inline float change_at(const struct unsent *of, Py_ssize_t j)
{
    return (of->mine[j] - of->base[j]) * of->factor;
}

static inline float sent_at(const struct unsent *of, Py_ssize_t j)
{
    return above(change_at(of, j), of->threshold);
}

struct counts {
    int32_t sent, changed; /* above the threshold; not 0 */
};

WITH_WIDE_VECTORS static struct counts count_all(const struct unsent *changes)
{
    const struct unsent of = *changes;
    int32_t sent = 0, changed = 0;
    #pragma omp simd reduction(+ : sent, changed)
    for (Py_ssize_t j = 0; j < of.places; j++) {
        sent += sent_at(&of, j) != 0;
        changed += change_at(&of, j) != 0;
    }
    return (struct counts){sent, changed};
}

static struct counts count_some(const struct unsent *of)
{
    struct counts counts = {0, 0};
    for (Py_ssize_t p = 0; p < of->places; p++) {
        counts.sent += sent_at(of, of->columns[p]) != 0;
        counts.changed += change_at(of, of->columns[p]) != 0;
    }
    return counts;
}

/* Who writes changes moves the base on to the worker's weights where they are sent. */
WITH_WIDE_VECTORS static void write_values_of_all(const struct unsent *changes, float *values)
{
    const struct unsent of = *changes; /* so that no store changes it */
    #pragma omp simd
    for (Py_ssize_t j = 0; j < of.places; j++) {
        values[j] = sent_at(&of, j);
        of.base[j] = values[j] != 0 ? of.mine[j] : of.base[j];
    }
}

static void write_values_of_some(const struct unsent *of, float *values)
{
    for (Py_ssize_t p = 0; p < of->places; p++) {
        int32_t j = of->columns[p];
        values[p] = sent_at(of, j);
        of->base[j] = values[p] != 0 ? of->mine[j] : of->base[j];
    }
}

/* The so many changes that are sent. Which they are is not to be guessed by the processor: each pair is written, and the
   next place only moved on to after one that is sent. */
static void write_pairs_of_some(const struct unsent *changes, struct pair *pairs, Py_ssize_t sent)
{
    const struct unsent of = *changes; /* so that no store changes it */
    for (Py_ssize_t p = 0, count = 0; count < sent && p < of.places; p++) {
        int32_t j = of.columns[p];
        float change = sent_at(&of, j);
        of.base[j] = change != 0 ? of.mine[j] : of.base[j];
        pairs[count] = (struct pair){(int32_t)p, change};
        count += change != 0;
    }
}

WITH_WIDE_VECTORS static void flag_sent(const struct unsent *changes, Py_ssize_t first, Py_ssize_t stop, uint8_t *flags)
{
    const struct unsent of = *changes;
    #pragma omp simd
    for (Py_ssize_t j = first; j < stop; j++)
        flags[j - first] = sent_at(&of, j) != 0;
}

static void write_pairs_of_all(const struct unsent *of, struct pair *pairs)
{
    int32_t columns[BLOCK];
    for (Py_ssize_t first = 0; first < of->places; first += BLOCK) {
        uint8_t flags[BLOCK] = {0};
        flag_sent(of, first, lesser(first + BLOCK, of->places), flags);
        Py_ssize_t sent = find_ones(flags, BLOCK, (int32_t)first, columns);
        for (Py_ssize_t k = 0; k < sent; k++) {
            int32_t j = columns[k];
            *pairs++ = (struct pair){j, change_at(of, j)};
            of->base[j] = of->mine[j];
        }
    }
}

static void write_changes(const struct unsent *of, void *room, int dense, Py_ssize_t sent)
{
    if (of->columns == NULL)
        dense ? write_values_of_all(of, room) : write_pairs_of_all(of, room);
    else
        dense ? write_values_of_some(of, room) : write_pairs_of_some(of, room, sent);
}

static PyObject *pack_turn(PyObject *module, PyObject *arguments)
{
    Py_buffer b[4];
    double scale, threshold;
    if (!PyArg_ParseTuple(arguments, "z*y*w*ddw*", &b[0], &b[1], &b[2], &scale, &threshold, &b[3]))
        return NULL;
    Py_ssize_t places = (b[0].buf != NULL ? b[0] : b[1]).len / 4;
    struct unsent of = {b[1].buf, b[2].buf, (float)scale, (float)threshold, b[0].buf, places};
    int right = check(b[1].len == b[2].len, "vector and base") && check(b[3].len >= 4 * places, "room for values");
    struct counts counts = {0, 0};
    int dense = 0;
    if (right) {
        counts = of.columns != NULL ? count_some(&of) : count_all(&of);
        dense = 4 * places < (Py_ssize_t)sizeof(struct pair) * counts.sent;
        write_changes(&of, b[3].buf, dense, counts.sent);
    }
    release_all(b, 4);
    return right ? Py_BuildValue("ii", dense ? -1 : counts.sent, counts.changed) : NULL;
}

/* The vector at some columns. */
static PyObject *copy_at(PyObject *module, PyObject *arguments)
{
    Py_buffer b[3];
    if (!PyArg_ParseTuple(arguments, "y*y*w*", &b[0], &b[1], &b[2]))
        return NULL;
    int right = check(b[1].len == b[2].len, "columns and values");
    const int32_t *columns = b[1].buf;
    for (Py_ssize_t p = 0; right && p < b[1].len / 4; p++)
        ((float *)b[2].buf)[p] = ((const float *)b[0].buf)[columns[p]];
    release_all(b, 3);
    return right ? Py_NewRef(Py_None) : NULL;
}

WITH_WIDE_VECTORS static int64_t count_since(const int64_t *changed_at, int64_t version, Py_ssize_t columns)
{
    int64_t count = 0;
    #pragma omp simd reduction(+ : count)
    for (Py_ssize_t j = 0; j < columns; j++)
        count += changed_at[j] > version;
    return count;
}

WITH_WIDE_VECTORS static void flag_since(const int64_t *changed_at, int64_t version, Py_ssize_t count, uint8_t *flags)
{
    #pragma omp simd
    for (Py_ssize_t j = 0; j < count; j++)
        flags[j] = changed_at[j] > version;
}

static void write_since(const int64_t *changed_at, int64_t version, const float *vector, Py_ssize_t count,
                        struct pair *pairs)
{
    int32_t columns[BLOCK];
    for (Py_ssize_t first = 0; first < count; first += BLOCK) {
        uint8_t flags[BLOCK] = {0};
        flag_since(changed_at + first, version, lesser(BLOCK, count - first), flags);
        Py_ssize_t changed = find_ones(flags, BLOCK, (int32_t)first, columns);
        for (Py_ssize_t k = 0; k < changed; k++)
            *pairs++ = (struct pair){columns[k], vector[columns[k]]};
    }
}

/* Writes the columns changed after a version, with the vector there, to pairs; returns how many, or -1 if there is no room
   for all of them. */
static PyObject *pick_since(PyObject *module, PyObject *arguments)
{
    Py_buffer b[3];
    long long version;
    if (!PyArg_ParseTuple(arguments, "y*Ly*w*", &b[0], &version, &b[1], &b[2]))
        return NULL;
    int right = check(b[0].len == 2 * b[1].len, "versions");
    Py_ssize_t columns = b[1].len / 4, room = b[2].len / (Py_ssize_t)sizeof(struct pair);
    int64_t count = right ? count_since(b[0].buf, version, columns) : 0;
    if (count > room)
        count = -1;
    else if (right)
        write_since(b[0].buf, version, b[1].buf, columns, b[2].buf);
    release_all(b, 3);
    return right ? PyLong_FromLongLong(count) : NULL;
}

struct added {
    Py_ssize_t changes; /* that are not 0 */
    double gains;
};

/* The changes of some columns on end. */
WITH_WIDE_VECTORS static void add_block(const struct update *to, const float *changes, int64_t *changed_at, int64_t version,
                                        Py_ssize_t first, Py_ssize_t stop, struct added *added)
{
    const struct update by = *to; /* so that no store changes it */
    float gains = 0;
    int32_t count = 0;
    #pragma omp simd reduction(+ : count, gains)
    for (Py_ssize_t j = first; j < stop; j++) {
        gains += add_any(&by, j, changes[j]);
        count += changes[j] != 0;
    }
    #pragma omp simd
    for (Py_ssize_t j = first; j < stop; j++)
        changed_at[j] = changes[j] != 0 ? version : changed_at[j];
    added->changes += count, added->gains += gains;
}

static struct added add_all(const struct update *to, const float *changes, int64_t *changed_at, int64_t version,
                            Py_ssize_t columns)
{
    struct added added = {0, 0};
    for (Py_ssize_t first = 0; first < columns; first += BLOCK)
        add_block(to, changes, changed_at, version, first, lesser(first + BLOCK, columns), &added);
    return added;
}

static struct added add_some(const struct update *to, const struct content *from, int64_t *changed_at, int64_t version)
{
    struct added added = {0, 0};
    for (Py_ssize_t k = 0; k < from->count; k++)
        if (value_at(from, k) != 0) {
            added.gains += add_one(to, column_at(from, k), value_at(from, k));
            changed_at[column_at(from, k)] = version;
            added.changes++;
        }
    return added;
}

static PyObject *add_update(PyObject *module, PyObject *arguments)
{
    Py_buffer b[6];
    struct update to;
    struct turn_size size;
    struct content from;
    long long version;
    double decay;
    if (!PyArg_ParseTuple(arguments, "w*w*w*y*z*y*Lff(fff)d", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &version, &to.factor,
                          &to.turns, &size.all_rows, &size.of_moved, &size.penalty, &decay))
        return NULL;
    struct added added = {0, 0};
    int right = check(b[1].len == 2 * b[0].len && b[2].len == b[0].len && b[3].len == b[0].len, "vectors of the server")
        && open_content(&from, &b[4], &b[5], b[0].len / 4);
    if (right) {
        to.vector = b[0].buf, to.times = b[2].buf, to.curvatures = b[3].buf, to.version = (float)version;
        to.reach = reach_of(size, to.turns);
        set_decay(&to, decay);
        added = from.pairs == NULL && from.columns == NULL ? add_all(&to, from.values, b[1].buf, version, from.count)
                                                           : add_some(&to, &from, b[1].buf, version);
    }
    release_all(b, 6);
    return right ? Py_BuildValue("nd", added.changes, added.gains) : NULL;
}

/* base = values and local = values + (local - base), of all columns or at the places. */
WITH_WIDE_VECTORS static void take_all(const float *values, Py_ssize_t columns, float *base, float *local)
{
    #pragma omp simd
    for (Py_ssize_t j = 0; j < columns; j++) {
        local[j] = values[j] + (local[j] - base[j]);
        base[j] = values[j];
    }
}

static void take_some(const struct content *from, float *base, float *local)
{
    for (Py_ssize_t k = 0; k < from->count; k++) {
        Py_ssize_t j = column_at(from, k);
        local[j] = value_at(from, k) + (local[j] - base[j]);
        base[j] = value_at(from, k);
    }
}

static PyObject *take_in(PyObject *module, PyObject *arguments)
{
    Py_buffer b[4];
    struct content from;
    if (!PyArg_ParseTuple(arguments, "z*y*w*w*", &b[0], &b[1], &b[2], &b[3]))
        return NULL;
    int right = check(b[2].len == b[3].len, "base and local") && open_content(&from, &b[0], &b[1], b[2].len / 4);
    if (right && from.pairs == NULL && from.columns == NULL)
        take_all(from.values, from.count, b[2].buf, b[3].buf);
    else if (right)
        take_some(&from, b[2].buf, b[3].buf);
    release_all(b, 4);
    return right ? Py_NewRef(Py_None) : NULL;
}

static PyObject *turn_keys(PyObject *module, PyObject *arguments)
{
    struct rows rows = {0};
    PyObject *of_rows;
    Py_buffer seen, keys, ends;
    Py_ssize_t turn_rows;
    if (!PyArg_ParseTuple(arguments, "O!nw*w*w*", &PyTuple_Type, &of_rows, &turn_rows, &seen, &keys, &ends))
        return NULL;
    int right = open_rows(of_rows, &rows) && fit_turns(&rows, turn_rows, &ends)
        && check(keys.len / 4 >= pointer(&rows, rows.count) - pointer(&rows, 0), "room for keys")
        && check(seen.len % 8 == 0, "seen");
    if (right) {
        int64_t *end = ends.buf;
        *end = 0;
        for (int64_t start = 0; start < rows.count; start += turn_rows, end++) {
            int64_t stop = pointer(&rows, lesser(start + turn_rows, rows.count));
            for (int64_t k = pointer(&rows, start); k < stop; k++)
                ((uint8_t *)seen.buf)[column(rows.columns.buf, rows.narrow, k)] = 1;
            end[1] = end[0] + find_ones(seen.buf, seen.len, 0, (int32_t *)keys.buf + end[0]);
            for (int64_t k = end[0]; k < end[1]; k++)
                ((uint8_t *)seen.buf)[((int32_t *)keys.buf)[k]] = 0;
        }
    }
    release(&rows);
    PyBuffer_Release(&seen);
    PyBuffer_Release(&keys);
    PyBuffer_Release(&ends);
    return right ? Py_NewRef(Py_None) : NULL;
}

PyMethodDef exchange_methods[] = { /* of the module in _kernel.c */
    {"pack_turn", pack_turn, METH_VARARGS, NULL},
    {"copy_at", copy_at, METH_VARARGS, NULL},
    {"pick_since", pick_since, METH_VARARGS, NULL},
    {"add_update", add_update, METH_VARARGS, NULL},
    {"take_in", take_in, METH_VARARGS, NULL},
    {"turn_keys", turn_keys, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
