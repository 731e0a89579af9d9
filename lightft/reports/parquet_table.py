"""The comparison as a Parquet file: the columns of the CSV table with their types, for pandas, Polars and DuckDB."""

from __future__ import annotations

import io

from lightft.comparison import Comparison
from lightft.reports.columns import run_columns
from lightft.reports.report import REPORTS


@REPORTS.register("parquet")
def parquet_table(comparison: Comparison) -> bytes:
    """Return one row per run, best first; what is missing is null.

    Run and method are strings, the seed is an integer, and every other column holds doubles: unrounded scores, sizes in
    bytes, durations in seconds.
    """
    # Reading it in takes longer than all other reports together.
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"run": pa.string(), "method": pa.string(), "seed": pa.int64()}
    columns = run_columns(comparison)
    arrays = [pa.array(values, types.get(name, pa.float64())) for name, values in columns]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, [name for name, _ in columns]), file)
    return file.getvalue()
