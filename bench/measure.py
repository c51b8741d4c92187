"""python -m bench.measure CASE ROUNDS FILE: measure one case, write the medians to the file.

Each case has a process of its own, so that what a peer leaves behind in it (threads, memory) meets
no other case. The rounds are interleaved (ours, peer, peer, ours, ...), so that a change of the
machine's speed meets all alike.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import warnings
from pathlib import Path

from bench import peers


def measure(name: str, rounds: int) -> dict[str, float]:
    """The median of each contender."""
    from bench.cases import CASES  # by now the environment is what the peers need

    case = next(case for case in CASES if case.name == name)
    with case.contenders() as contenders:
        results: dict[str, list[float]] = {name: [] for name in contenders}
        if case.warm_up:
            for once in contenders.values():
                once()
        for _ in range(rounds):
            for name, once in contenders.items():
                results[name].append(once())
    return {name: statistics.median(values) for name, values in results.items()}


def main() -> int:
    _, case, rounds, file = sys.argv
    warnings.simplefilter("ignore")  # Dask's about large arguments
    os.environ["PYTHONWARNINGS"] = "ignore"
    peers.prepare()
    Path(file).write_text(json.dumps(measure(case, int(rounds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
