"""make bench [ONLY=name] [ROUNDS=n]: measure all cases, write bench/RESULTS.md and
bench/results.json.

Rows of results.json: name, unit, ours, peer, theirs, ratio (ours/theirs); medians of the rounds.
With ONLY nothing is written but the tables on the terminal. What is written by hand in NOTES.md is
put below the tables.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.cases import CASES, Case
from bench.peers import missing, versions
from bench.table import Row, peers_table, rows_of, targets_table

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CASE_AT_MOST_S = 600


def measure(case: Case) -> dict[str, float]:
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "-m", "bench.measure", case.name, str(ROUNDS), file.name]
        environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
        subprocess.run(command, check=True, env=environment, timeout=CASE_AT_MOST_S)
        return json.load(file)


def machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {sys.version.split()[0]}"
    )


def document(rows: list[Row]) -> str:
    absent = "".join(f" {name} could not be installed, and was not measured." for name in missing())
    return (
        "# Results\n\n"
        f"`make bench`, {datetime.date.today()}, medians of {ROUNDS} interleaved rounds.\n"
        f"{machine()}; a shared machine: compare within a row only.\n"
        f"Two workers each; {versions()}.{absent}\n\n"
        f"## Targets\n\n{targets_table(CASES, rows)}\n\n"
        f"## Beside every peer\n\n{peers_table(CASES, rows)}\n\n" + (HERE / "NOTES.md").read_text()
    )


def main() -> int:
    only = os.environ.get("ONLY", "")
    cases = [case for case in CASES if only in ("", case.name)]
    if not cases:
        print(f"ONLY={only}: there is no such case; there are", *(case.name for case in CASES))
        return 2
    for name in missing():
        print(f"{name} is not installed and not measured", file=sys.stderr)
    rows: list[Row] = []
    failed = []
    for case in cases:
        start = time.monotonic()
        try:
            new = rows_of(case, measure(case))
        except subprocess.SubprocessError as error:
            print(f"{case.name}: {error}", file=sys.stderr)
            failed.append(case.name)
            continue
        rows += new
        print(peers_table([case], new), end="\n\n")
        if case.targets:
            print(targets_table([case], new))
        print(f"({case.name}: {time.monotonic() - start:.0f} s)\n", flush=True)
    if failed:
        print("nothing is written, since these failed:", *failed, file=sys.stderr)
        return 1
    if not only:
        (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
        (HERE / "RESULTS.md").write_text(document(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
