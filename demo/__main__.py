"""`python -m demo`: the steps of the demo, in the order in which they are seen.

Exit code: 0 when every output equals plain pandas and each bad file was reported, 1 when
not (the reason is on standard error), 130 after Ctrl-C. The server ends in every case.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec.config
import s3fs

from demo import comparison, failures, terminal, trips
from demo.server import ROOT, S3Server
from demo.verification import Digest, Mismatch, expected, verify

INPUT = "s3://nyc-tlc/trip data/"
SCRATCH = "s3://tendril-scratch/"
EXAMPLE_FOLDER = SCRATCH + "nyc-taxi/"  # as in examples/nyc_taxi.py
EXAMPLE = Path("examples/nyc_taxi.py")
# Twice what Ctrl-C may take by Tendril's own promise; after it the example is killed.
INTERRUPT_DEADLINE_S = 2.0
MEGABYTE = 1_000_000


class Failed(Exception):
    """A step of the demo failed; the text says which."""


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with S3Server() as server:
            _demo(server, options)
    except (Failed, Mismatch, failures.NotReported) as error:
        print(terminal.colour(f"FAILED: {error}", terminal.RED), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        terminal.say("\nStopped.")
        return 128 + signal.SIGINT
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Run the NYC taxi example against a local S3 server and check its outputs.",
    )
    parser.add_argument(
        "--files",
        type=int,
        default=os.environ.get("TENDRIL_DEMO_FILES", 60),
        help=f"monthly files for the example, 2 to {len(trips.WANTED)} "
        "(TENDRIL_DEMO_FILES, default 60)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=os.environ.get("TENDRIL_DEMO_SCALE", 0.01),
        help="share of the published rows that a file gets (TENDRIL_DEMO_SCALE, default 0.01)",
    )
    parser.add_argument("--seed", type=int, default=2009, help="seed of the generator")
    options = parser.parse_args(argv)
    if not 2 <= options.files <= len(trips.WANTED):
        parser.error(f"--files takes 2 to {len(trips.WANTED)}")
    if not 0 < options.scale <= 1:
        parser.error("--scale takes more than 0, up to 1")
    return options


def _demo(server: S3Server, options: argparse.Namespace) -> None:
    _stay_local(server)
    s3 = server.filesystem()
    terminal.heading("NYC taxi files on a local S3 server")
    terminal.say(f"{server.url} serves {INPUT}")
    wanted, bad = _fill(s3, options)
    truth = expected(s3, wanted)

    terminal.heading(f"$ TENDRIL_PLACE=local python {EXAMPLE}")
    _run_example()
    _verify(s3, EXAMPLE_FOLDER, truth)

    terminal.heading(f"Builtin map and process.map, {len(wanted)} files each")
    legs = _compare(s3, wanted, truth)  # before any other map of this process; see comparison

    terminal.heading('Bad input spoils nothing else: process.map(filenames, errors="return")')
    terminal.say("(the files of 2009 have no column tip_amount)")
    _run_failures(s3, bad, wanted[: len(bad)], truth)

    terminal.heading("Builtin map against process.map, the start of the runners included")
    _print_comparison(*legs)


def _stay_local(server: S3Server) -> None:
    """Point this process, and with it runners and children, at the local server and machine."""
    environ = server.environ() | {"TENDRIL_PLACE": "local"}
    os.environ.clear()
    os.environ.update(environ)
    fsspec.config.conf.clear()  # it was read from the old environment, by the import


def _fill(s3: s3fs.S3FileSystem, options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Create the buckets and their files; returns those for the example and the bad ones, as ls."""
    begin = time.perf_counter()
    for bucket in (INPUT.split("/")[2], SCRATCH.split("/")[2]):
        s3.mkdir(bucket)
    wanted, bad, bytes_put, rows_put = [], [], 0, 0
    files = 0
    for month, rows, content in trips.files(options.files, options.scale, options.seed):
        filename = INPUT + month.name
        s3.pipe_file(filename, content)
        files, rows_put, bytes_put = files + 1, rows_put + rows, bytes_put + len(content)
        if month.tips == trips.TIPS_ABSENT:
            bad.append(filename)
        elif month.kind == "yellow":
            wanted.append(filename)
    seconds = time.perf_counter() - begin
    terminal.say(
        f"{files} files, {rows_put:,} rows, {bytes_put / MEGABYTE:.0f} MB in {seconds:.1f} s: "
        f"{len(wanted)} for the example's filter, {files - len(wanted)} for it to leave out"
    )
    return sorted(wanted), bad


def _run_example() -> None:
    """Run the example on our own standard output; interrupted, it gets time to end by itself."""
    process = subprocess.Popen([sys.executable, str(EXAMPLE)], cwd=ROOT)
    try:
        status = process.wait()
    except BaseException as reason:
        if not isinstance(reason, KeyboardInterrupt):  # else the terminal has told it already
            process.terminate()
        try:
            process.wait(INTERRUPT_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    if status != 0:
        raise Failed(f"{EXAMPLE} ended with status {status}")


def _run_failures(
    s3: s3fs.S3FileSystem, bad: list[str], good: list[str], truth: dict[str, Digest]
) -> None:
    folder = SCRATCH + "among-bad/"
    for filename, outcome in failures.run(bad, good, folder):
        terminal.say(f"  {filename.rsplit('/', 1)[-1]}  {outcome}")
    names = [filename.rsplit("/", 1)[-1] for filename in good]
    _verify(s3, folder, {name: truth[name] for name in names})


def _compare(
    s3: s3fs.S3FileSystem, filenames: list[str], truth: dict[str, Digest]
) -> tuple[comparison.Leg, comparison.Leg]:
    plain_folder, mapped_folder = SCRATCH + "plain/", SCRATCH + "mapped/"
    plain, mapped = comparison.compare(filenames, plain_folder, mapped_folder)
    _verify(s3, plain_folder, truth)
    _verify(s3, mapped_folder, truth)
    return plain, mapped


def _print_comparison(plain: comparison.Leg, mapped: comparison.Leg) -> None:
    rows = [("", "time", "speed")]
    for leg in (plain, mapped):
        rows.append((leg.name, f"{leg.seconds:.2f} s", f"{plain.seconds / leg.seconds:.2f}x"))
    terminal.table(rows)


def _verify(s3: s3fs.S3FileSystem, folder: str, truth: dict[str, Digest]) -> None:
    verify(s3, folder, truth)
    rows = sum(digest.rows for digest in truth.values())
    terminal.good(
        f"Verified {folder}: {len(truth)} files, {rows:,} rows, "
        "row counts and content hashes as from plain pandas"
    )


if __name__ == "__main__":
    sys.exit(main())
