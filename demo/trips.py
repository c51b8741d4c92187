"""Taxi trips: seeded monthly Parquet files with the schemas that the TLC publishes.

Sizes follow the row counts published for 20 months, and lie between those for the others. So
the files differ as much as the real ones do (a month of the 2020 lockdown has a sixtieth of the
rows of a busy one), and a map over them has the uneven calls that real work has. Each file has a
random stream of its own, so its bytes depend on the seed and the scale, never on which other
files are made.
"""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SOME_NULL_SHARE = 0.03
SMALLEST_ROWS = 100

TIPS_FULL, TIPS_SOME_NULL, TIPS_ALL_NULL, TIPS_ABSENT = "full", "some null", "all null", "absent"


@dataclass(frozen=True)
class Month:
    """One file: its kind, its month, the rows the TLC published for it, the state of its tips."""

    month: str
    published_rows: int
    tips: str = TIPS_FULL
    kind: str = "yellow"

    @property
    def name(self) -> str:
        return f"{self.kind}_tripdata_{self.month}.parquet"

    def rows(self, scale: float) -> int:
        return max(SMALLEST_ROWS, round(self.published_rows * scale))


# The order mixes sizes and kinds of tips, so that the first few already show all of them.
PUBLISHED = (
    Month("2019-01", 7_696_617),
    Month("2020-04", 238_073),
    Month("2015-07", 11_559_666, TIPS_SOME_NULL),
    Month("2021-02", 1_371_709, TIPS_ALL_NULL),
    Month("2011-03", 16_066_351),
    Month("2022-06", 3_558_124),
    Month("2017-08", 8_422_153, TIPS_SOME_NULL),
    Month("2020-08", 1_007_286),
    Month("2013-05", 15_285_052),
    Month("2019-11", 6_878_111),
    Month("2023-03", 3_403_766, TIPS_SOME_NULL),
    Month("2018-02", 8_492_819),
    Month("2020-03", 3_007_687),
    Month("2014-07", 13_104_273),
    Month("2021-10", 3_463_504),
    Month("2012-08", 14_381_752),
    Month("2016-09", 10_116_018),
    Month("2020-06", 549_797, TIPS_SOME_NULL),
    Month("2018-07", 7_851_143),
    Month("2022-01", 2_463_931),
)


def _others(first: int, last: int) -> Iterator[Month]:
    """The months of these years that PUBLISHED leaves out, with sizes between their neighbours'."""
    known = {month.month: month.published_rows for month in PUBLISHED}
    at = [_number(month) for month in sorted(known)]
    rows = [known[month] for month in sorted(known)]
    for number in range(12 * first, 12 * (last + 1)):
        month = f"{number // 12}-{number % 12 + 1:02}"
        if month not in known:
            yield Month(month, int(np.interp(number, at, rows)))


def _number(month: str) -> int:
    year, number = map(int, month.split("-"))
    return 12 * year + number - 1


WANTED = (*PUBLISHED, *_others(2011, 2022))
UNWANTED = (
    Month("2009-01", 14_092_413, TIPS_ABSENT),
    Month("2009-07", 13_626_103, TIPS_ABSENT),
    Month("2019-01", 630_918, kind="green"),
)
# Files that the filter leaves out are there to be left out: they need no size.
UNWANTED_SHARE = 0.1

# In 2009 the TLC used other names, gave places by coordinates and dates as text.
NAMES_2009 = {
    "VendorID": "vendor_name",
    "tpep_pickup_datetime": "Trip_Pickup_DateTime",
    "tpep_dropoff_datetime": "Trip_Dropoff_DateTime",
    "passenger_count": "Passenger_Count",
    "trip_distance": "Trip_Distance",
    "RatecodeID": "Rate_Code",
    "store_and_fwd_flag": "store_and_forward",
    "payment_type": "Payment_Type",
    "fare_amount": "Fare_Amt",
    "extra": "surcharge",
    "mta_tax": "mta_tax",
    "tip_amount": "Tip_Amt",
    "tolls_amount": "Tolls_Amt",
    "total_amount": "Total_Amt",
}


def files(count: int, scale: float, seed: int) -> Iterator[tuple[Month, int, bytes]]:
    """The bucket's files, one at a time: `count` that the example wants, then the others.

    `scale` is the share of the published rows that a file gets. Yields the month, its rows
    and the Parquet bytes.
    """
    sized = [(month, month.rows(scale)) for month in WANTED[:count]]
    sized += [(month, month.rows(scale * UNWANTED_SHARE)) for month in UNWANTED]
    # Threads serve: NumPy and Arrow let go of the interpreter lock for the bulk of the work.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda file: _file(*file, seed), sized)


def _file(month: Month, rows: int, seed: int) -> tuple[Month, int, bytes]:
    year, number = map(int, month.month.split("-"))
    rng = np.random.default_rng([seed, year, number, len(month.kind)])
    table = _yellow(month, rows, rng)
    if month.tips == TIPS_ABSENT:
        table = _as_in_2009(table, rng)
    elif month.kind == "green":
        table = table.rename_columns(
            [name.replace("tpep_", "lpep_") for name in table.column_names]
        )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return month, rows, sink.getvalue()


def _yellow(month: Month, rows: int, rng: np.random.Generator) -> pa.Table:
    """Trips as the TLC's yellow schema has them since 2011; surcharges are null before their law.

    Fares follow distance and tips follow fares and cards, so values repeat and compress
    about as the real ones do.
    """
    begin = np.datetime64(month.month, "M")
    month_s = (begin + 1).astype("M8[s]").astype(np.int64) - begin.astype("M8[s]").astype(np.int64)
    pickup = begin.astype("M8[s]") + np.sort(rng.integers(0, month_s, rows)).astype("m8[s]")
    distance = np.round(rng.gamma(1.3, 2.2, rows), 2)
    duration_s = (distance * 240).astype(np.int64) + rng.integers(60, 660, rows)
    fare = 2.5 + 0.5 * np.floor(distance * 5)
    by_card = rng.random(rows) < 0.68
    share = np.array([0.0, 0.15, 0.2, 0.2, 0.25, 0.3])[rng.integers(0, 6, rows)]
    tip = np.round(np.where(by_card, fare * share, 0.0), 2)
    extra = np.array([0.0, 0.5, 1.0])[rng.integers(0, 3, rows)]
    tolls = np.where(rng.random(rows) < 0.05, 6.12, 0.0)
    congestion = np.full(rows, 2.5 if month.month >= "2019-02" else np.nan)
    airport = np.full(rows, 0.0 if month.month >= "2021-04" else np.nan)
    total = np.round(fare + extra + tip + tolls + 0.8 + np.nan_to_num(congestion), 2)
    columns = {
        "VendorID": rng.integers(1, 3, rows),
        "tpep_pickup_datetime": pickup.astype("M8[us]"),
        "tpep_dropoff_datetime": (pickup + duration_s.astype("m8[s]")).astype("M8[us]"),
        "passenger_count": rng.integers(0, 7, rows).astype(np.float64),
        "trip_distance": distance,
        "RatecodeID": rng.integers(1, 3, rows).astype(np.float64),
        "store_and_fwd_flag": np.where(rng.random(rows) < 0.005, "Y", "N"),
        "PULocationID": rng.integers(1, 266, rows),
        "DOLocationID": rng.integers(1, 266, rows),
        "payment_type": np.where(by_card, 1, 2),
        "fare_amount": fare,
        "extra": extra,
        "mta_tax": np.full(rows, 0.5),
        "tip_amount": _tips(month, tip, rng),
        "tolls_amount": tolls,
        "improvement_surcharge": np.full(rows, 0.3),
        "total_amount": total,
        "congestion_surcharge": congestion,
        "airport_fee": airport,
    }
    return pa.table({name: _array(column) for name, column in columns.items()})


def _array(column: np.ndarray | pa.Array) -> pa.Array:
    # from_pandas: a NaN here means "not known", which Parquet calls null.
    return column if isinstance(column, pa.Array) else pa.array(column, from_pandas=True)


def _tips(month: Month, tip: np.ndarray, rng: np.random.Generator) -> np.ndarray | pa.Array:
    if month.tips == TIPS_SOME_NULL:
        return np.where(rng.random(len(tip)) < SOME_NULL_SHARE, np.nan, tip)
    if month.tips == TIPS_ALL_NULL:
        return pa.nulls(len(tip))  # no type at all, as the TLC published airport_fee for years
    return tip


def _as_in_2009(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    old = {new: table[name] for name, new in NAMES_2009.items()}
    for name in ("Trip_Pickup_DateTime", "Trip_Dropoff_DateTime"):
        old[name] = pa.array(np.datetime_as_string(old[name].to_numpy(), unit="s"))
    old["vendor_name"] = pa.array(np.where(old["vendor_name"].to_numpy() == 1, "CMT", "VTS"))
    old["Payment_Type"] = pa.array(np.where(old["Payment_Type"].to_numpy() == 1, "CREDIT", "CASH"))
    for end in ("Start", "End"):
        old[f"{end}_Lon"] = pa.array(rng.normal(-73.98, 0.03, table.num_rows))
        old[f"{end}_Lat"] = pa.array(rng.normal(40.75, 0.03, table.num_rows))
    return pa.table(old)
