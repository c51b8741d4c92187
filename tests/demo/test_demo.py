"""The demo as a person runs it, its ends, and the example on real taxi data."""

import io
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest

from demo import trips
from demo.server import ROOT, S3Server
from demo.verification import Mismatch, expected, verify

SAMPLES = ROOT.parent / "shared" / "data" / "nyc_yellow_csv"
INPUT = "nyc-tlc/trip data/"
OUTPUT = "tendril-scratch/nyc-taxi/"
DEMO_S = 100.0  # the demo in its small configuration, on a busy machine
END_S = 15.0  # for processes to be gone after their parent
SMALL_NAMES = sorted(month.name for month in trips.WANTED[:4])
# The samples' names, where they differ from the TLC's.
TLC_NAMES = {
    "vendor_id": "VendorID",
    "pickup_datetime": "tpep_pickup_datetime",
    "dropoff_datetime": "tpep_dropoff_datetime",
    "rate_code_id": "RatecodeID",
    "pickup_location_id": "PULocationID",
    "dropoff_location_id": "DOLocationID",
}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        server.filesystem().mkdir("tendril-scratch")
        yield server


@pytest.fixture(scope="module")
def small_demo() -> subprocess.CompletedProcess[str]:
    """The whole demo, once, with its standard streams in pipes."""
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--files", "4", "--scale", "0.001"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEMO_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), 1).close()
    except OSError:
        return False
    return True


def processes_that_know(url: str) -> list[int]:
    """Processes with the server's address, which is theirs alone, in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and url.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass  # it has just ended, or is another user's
    return found


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)  # between two looks at what only /proc or a port can tell
    return True


def printed_by_the_example(output: str) -> tuple[list[str], list[str]]:
    """The names in its lines 'Processing s3://...' and 'Finished s3://...', as they came."""
    processing = re.findall(rf"^Processing s3://{INPUT}(\S+)$", output, re.MULTILINE)
    finished = re.findall(rf"^Finished s3://{OUTPUT}(\S+)$", output, re.MULTILINE)
    return processing, finished


def test_demo_says_what_the_seed_says(small_demo: subprocess.CompletedProcess[str]) -> None:
    lines = small_demo.stdout.splitlines()
    assert "Processing 4 files" in lines
    assert "Done!" in lines
    processing, finished = printed_by_the_example(small_demo.stdout)
    assert sorted(processing) == SMALL_NAMES
    assert finished == SMALL_NAMES  # results come in the order of the inputs


def test_demo_verifies_each_run(small_demo: subprocess.CompletedProcess[str]) -> None:
    verified = re.findall(
        r"^Verified s3://tendril-scratch/(\S+)/: (\d+) files", small_demo.stdout, re.M
    )
    assert verified == [("nyc-taxi", "4"), ("plain", "4"), ("mapped", "4"), ("among-bad", "2")]


def test_demo_reports_bad_files(small_demo: subprocess.CompletedProcess[str]) -> None:
    bad = re.findall(r"^ +(\S+)  AttributeError: .*'tip_amount'$", small_demo.stdout, re.M)
    assert bad == ["yellow_tripdata_2009-01.parquet", "yellow_tripdata_2009-07.parquet"]


def test_demo_compares_both_maps(small_demo: subprocess.CompletedProcess[str]) -> None:
    legs = re.findall(r"^(\S+)\(.*filenames\) +[\d.]+ s +[\d.]+x$", small_demo.stdout, re.M)
    assert legs == ["map", "process.map"]


def test_demo_in_a_pipe_is_plain(small_demo: subprocess.CompletedProcess[str]) -> None:
    assert "\033" not in small_demo.stdout
    assert small_demo.stderr == ""  # no progress bar


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_leaves_nothing_when_stopped(number: signal.Signals) -> None:
    """Stopped in the middle of the example's map: Ctrl-C goes to the group, SIGTERM to the demo."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo", "--files", "8", "--scale", "0.01"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output = read_until(demo, b"Processing s3://")
        url = re.search(rb"http://127\.0\.0\.1:\d+", output)[0].decode()
        assert listens(url)
        if number == signal.SIGINT:
            os.killpg(demo.pid, number)
        else:
            demo.send_signal(number)
        rest, _ = demo.communicate(timeout=END_S)

        assert demo.returncode == 128 + number, (output + rest).decode()
        assert b"Done!" not in rest
        assert not listens(url)
        assert within(END_S, lambda: not processes_that_know(url)), processes_that_know(url)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.communicate()


def read_until(process: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    """What a process has written up to and with `wanted`; fails if that does not come."""
    assert process.stdout is not None
    output, deadline = b"", time.monotonic() + DEMO_S
    while wanted not in output:
        ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        chunk = os.read(process.stdout.fileno(), 65536) if ready else b""
        assert chunk, f"no {wanted!r} in {output.decode()}"
        output += chunk
    return output


def test_server_ends_when_its_parent_is_killed() -> None:
    source = (
        "import sys; from demo.server import S3Server\n"
        "with S3Server() as server: print(server.url, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", source], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        url = read_until(parent, b"\n").decode().strip()
        assert listens(url)
        parent.kill()

    assert within(END_S, lambda: not listens(url))


def test_trips_depend_on_the_seed_alone() -> None:
    first = {month.name: content for month, _, content in trips.files(4, 0.0001, seed=1)}
    fewer = {month.name: content for month, _, content in trips.files(2, 0.0001, seed=1)}
    other = {month.name: content for month, _, content in trips.files(4, 0.0001, seed=2)}

    assert fewer.items() <= first.items()
    assert all(first[name] != content for name, content in other.items())


def test_trips_have_the_tips_that_they_say() -> None:
    for month, rows, content in trips.files(len(trips.WANTED), 0.0001, seed=1):
        df = pd.read_parquet(io.BytesIO(content))
        assert len(df) == rows
        if month.tips == trips.TIPS_ABSENT:
            assert "tip_amount" not in df
            continue
        assert len(df.columns) == 19
        nulls = df.tip_amount.isna()
        assert nulls.any() == (month.tips != trips.TIPS_FULL)
        assert nulls.all() == (month.tips == trips.TIPS_ALL_NULL)
        assert (df.tip_amount != 0).any()


def alter_value(df: pd.DataFrame) -> pd.DataFrame:
    df.loc[df.index[1], "tip_amount"] += 0.01
    return df


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (None, "missing"),
        (lambda df: df.iloc[:-1], "1 rows where plain pandas gives 2"),
        (lambda df: df.iloc[::-1], "not the same ones"),
        (lambda df: df.rename(columns={"tip_amount": "tip"}), "not the same ones"),
        (lambda df: df.astype({"VendorID": "int32"}), "not the same ones"),
        (alter_value, "not the same ones"),
    ],
    ids=["missing", "rows", "order", "column", "type", "value"],
)
def test_verification_tells_what_differs(
    server: S3Server,
    request: pytest.FixtureRequest,
    damage: Callable[[pd.DataFrame], pd.DataFrame] | None,
    reason: str,
) -> None:
    s3 = server.filesystem()
    folder = f"tendril-scratch/{request.node.callspec.id}/"
    source, copy = folder + "in/a.parquet", folder + "out/a.parquet"
    df = pd.DataFrame({"VendorID": [1, 2, 2], "tip_amount": [1.0, 0.0, 2.5]})
    good = df[df.tip_amount != 0]
    put(s3, source, df)
    put(s3, copy, good)
    put(s3, folder + "out/b.parquet", good)
    truth = expected(s3, [source])
    with pytest.raises(Mismatch, match=r"b\.parquet: not asked for"):
        verify(s3, folder + "out/", truth)
    s3.rm(folder + "out/b.parquet")
    verify(s3, folder + "out/", truth)

    s3.rm(copy)
    if damage is None:
        put(s3, folder + "out/b.parquet", good)  # so that the folder exists
    else:
        put(s3, copy, damage(good.copy()))

    with pytest.raises(Mismatch, match=rf"a\.parquet: .*{reason}"):
        verify(s3, folder + "out/", truth)


def put(s3, filename: str, df: pd.DataFrame) -> None:
    content = io.BytesIO()
    df.to_parquet(content)
    s3.pipe_file(filename, content.getvalue())


def test_example_does_its_job_on_real_months(server: S3Server) -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"no real samples here: {SAMPLES} is not a folder")
    s3 = server.filesystem()
    s3.mkdir(INPUT.split("/")[0])
    filenames = [put_sample(s3, sample) for sample in sorted(SAMPLES.glob("*.csv"))]
    assert filenames, f"{SAMPLES} has no samples"

    done = subprocess.run(
        [sys.executable, "examples/nyc_taxi.py"],
        cwd=ROOT,
        env=server.environ() | {"TENDRIL_PLACE": "local"},
        capture_output=True,
        text=True,
        timeout=DEMO_S,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"Processing {len(filenames)} files\n")
    assert done.stdout.endswith("Done!\n")
    names = [filename.removeprefix(INPUT) for filename in filenames]
    processing, finished = printed_by_the_example(done.stdout)
    assert sorted(processing) == names
    assert finished == names
    verify(s3, OUTPUT, expected(s3, filenames))


def put_sample(s3, sample: Path) -> str:
    """A real month under the name, in the bucket and with the columns that the TLC gives it."""
    df = pd.read_csv(sample, parse_dates=["pickup_datetime", "dropoff_datetime"])
    filename = INPUT + sample.stem.replace("_sample_", "_") + ".parquet"
    put(s3, filename, df.rename(columns=TLC_NAMES))
    return filename
