"""What `_kernel.c` offers; `compiled_loops` says what it computes. `wide`: the row pointers are int64, not int32."""

from typing_extensions import Buffer

def multiply(
    row_pointers: Buffer, columns: Buffer, values: Buffer, wide: bool, weights: Buffer, out: Buffer, /
) -> None: ...
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
) -> tuple[int, float]: ...
