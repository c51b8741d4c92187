"""make bench [ONLY=name]: measure all cases, write bench/RESULTS.md and bench/results.json.

Rows of results.json: name, unit, ours, peer, theirs, ratio (ours/theirs); medians of the rounds.
With ONLY nothing is written but the rows on the terminal.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.cases import CASES, Case

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("ROUNDS", "5"))


def measure(case: Case) -> dict[str, float]:
    """The median of each contender, rounds interleaved, after one round that does not count."""
    with case.contenders() as contenders:
        results: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(ROUNDS + 1):
            for name, once in contenders.items():
                value = once()
                if number:
                    results[name].append(value)
    return {name: statistics.median(values) for name, values in results.items()}


def rows_of(case: Case, medians: dict[str, float]) -> list[dict[str, Any]]:
    ours = medians.pop("ours")
    return [
        {
            "name": case.name,
            "unit": case.unit,
            "ours": round(ours, 3),
            "peer": peer,
            "theirs": round(theirs, 3),
            "ratio": round(ours / theirs, 4) if theirs else None,
        }
        for peer, theirs in medians.items()
    ]


def machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return (
        f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {sys.version.split()[0]}"
    )


def table(rows: list[dict[str, Any]]) -> str:
    titles = {case.name: case for case in CASES}
    lines = ["| what | unit | ours | peer | theirs | ours/theirs |", "|---|---|---|---|---|---|"]
    for row in rows:
        case = titles[row["name"]]
        better = "less" if case.less_is_better else "more"
        lines.append(
            f"| {case.title} ({better} is better) | {row['unit']} | {row['ours']:,.4g} | "
            f"{row['peer']} | {row['theirs']:,.4g} | {row['ratio']} |"
        )
    return "\n".join(lines)


def main() -> int:
    only = os.environ.get("ONLY", "")
    cases = [case for case in CASES if only in ("", case.name)]
    if not cases:
        print(f"ONLY={only}: there is no such case; there are", *(case.name for case in CASES))
        return 2
    rows: list[dict[str, Any]] = []
    for case in cases:
        new = rows_of(case, measure(case))
        rows += new
        print(table(new), flush=True)
    if only:
        return 0
    (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    (HERE / "RESULTS.md").write_text(
        "# Results\n\n"
        f"`make bench`, {datetime.date.today()}, medians of {ROUNDS} interleaved rounds.\n"
        f"{machine()}; a shared machine: compare within a row only.\n\n{table(rows)}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
