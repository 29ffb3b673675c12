"""What the kernel offers: first `_kernel.c`, from `subtract` on `_vectors.c`, from `pack_turn` on `_exchange.c`.

From `meet` on `_locks.c`, from `exchange_in_memory` on `_hogwild.c`, from `take_turns` on `_turns.c`. `compiled_loops`,
`vector_loops`, `exchange_loops` and `hogwild_loops` say what it is.

`wide`: the row pointers are int64, not int32.
"""

from typing_extensions import Buffer

def multiply(
    row_pointers: Buffer, columns: Buffer, values: Buffer, wide: bool, weights: Buffer, out: Buffer, /
) -> None: ...
def judge(
    row_pointers: Buffer,
    columns: Buffer,
    values: Buffer,
    wide: bool,
    labels: Buffer,
    weights: Buffer,
    scale: float,
    loss: int,
    /,
) -> tuple[int, float]: ...
def copy_rows(
    rows: Buffer,
    row_pointers: Buffer,
    columns: Buffer,
    values: Buffer,
    wide: bool,
    out_columns: Buffer,
    out_values: Buffer,
    /,
) -> None: ...
def squared_norms(row_pointers: Buffer, columns: Buffer, values: Buffer, wide: bool, out: Buffer, /) -> None: ...
def minibatch_steps(
    row_pointers: Buffer,
    columns: Buffer,
    values: Buffer,
    wide: bool,
    labels: Buffer,
    squared_norms: Buffer,
    start: int,
    stop: int,
    batch_size: int,
    margins: Buffer,
    vector: Buffer,
    scale: float,
    smallest_scale: float,
    step_size: float,
    regularization: float,
    loss: int,
    bias_step: float,
    has_bias: bool,
    /,
) -> tuple[int, float, int]: ...
def subtract(mine: Buffer, shared: Buffer, scale: float, threshold: float, changes: Buffer, /) -> tuple[int, int]: ...
def merge_turns(
    locals_: Buffer,
    weights: Buffer,
    start: int,
    stop: int,
    shrinkings: Buffer,
    threshold: float,
    curvatures: Buffer,
    turn_size: tuple[float, float, float],
    /,
) -> tuple[int, int, int, float]: ...
def merge(
    weights: Buffer,
    changes: Buffer,
    curvatures: Buffer,
    turn_size: tuple[float, float, float],
    turns: float,
    shrinking: float,
    /,
) -> tuple[int, float]: ...
def blend(average: Buffer, weights: Buffer, share: float, scale: float, /) -> None: ...
def pack_turn(
    columns: Buffer | None, vector: Buffer, base: Buffer, scale: float, threshold: float, room: Buffer, /
) -> tuple[int, int]: ...
def copy_at(vector: Buffer, columns: Buffer, out: Buffer, /) -> None: ...
def pick_since(changed_at: Buffer, version: int, vector: Buffer, pairs: Buffer, /) -> int: ...
def add_update(
    vector: Buffer,
    changed_at: Buffer,
    times_changed: Buffer,
    curvatures: Buffer,
    columns: Buffer | None,
    content: Buffer,
    version: int,
    factor: float,
    turns: float,
    turn_size: tuple[float, float, float],
    decay: float,
    /,
) -> tuple[int, float]: ...
def take_in(columns: Buffer | None, content: Buffer, base: Buffer, local: Buffer, /) -> None: ...
def turn_keys(
    rows: tuple[Buffer, Buffer, Buffer, bool], turn_rows: int, seen: Buffer, keys: Buffer, ends: Buffer, /
) -> None: ...
def meet(meetings: Buffer, stride: int, mine: int, meeting: int, first: int, looks: int, /) -> bool: ...
def make_lock(lock: Buffer, /) -> bool: ...
def take_lock(lock: Buffer, /) -> bool: ...
def try_lock(lock: Buffer, /) -> bool: ...
def is_alone(lock: Buffer, /) -> bool: ...
def give_lock(lock: Buffer, /) -> bool: ...
def exchange_in_memory(
    memory: tuple[Buffer, ...],
    rule: tuple[float, float, float, float, float, float],
    columns: Buffer | None,
    wanted: Buffer | None,
    turn_size: tuple[float, float, float],
    /,
) -> int: ...
def take_turns(
    rows: tuple[Buffer, Buffer, Buffer, bool],
    batches: tuple[Buffer, Buffer, int, Buffer],
    steps: tuple[float, float, float, float, float, int, float, bool],
    keys: tuple[Buffer, Buffer, int],
    memory: tuple[Buffer, ...],
    rule: tuple[float, float, float, float, float, float],
    turns_done: Buffer,
    stop: Buffer,
    number: int,
    until_rows: float,
    /,
) -> tuple[int, int]: ...
