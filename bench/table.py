"""Rows of results, and the tables that RESULTS.md shows of them. Needs nothing installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Row = dict[str, Any]


class Target(Protocol):
    text: str
    factor: float
    peer: str


class Case(Protocol):
    """What is needed of bench.cases.Case."""

    name: str
    title: str
    unit: str
    less_is_better: bool
    targets: Sequence[Target]


def rows_of(case: Case, medians: Mapping[str, float]) -> list[Row]:
    """One row for each contender but ours; ratio is ours / theirs, None beside a zero."""
    ours = medians["ours"]
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
        if peer != "ours"
    ]


def figure(value: float | None) -> str:
    """Four digits, in full up to millions."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _lines(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def peers_table(cases: Sequence[Case], rows: Sequence[Row]) -> str:
    lines = []
    for case in cases:
        better = "less" if case.less_is_better else "more"
        lines += [
            [
                f"{case.name}: {case.title} ({case.unit}, {better} is better)",
                figure(row["ours"]),
                row["peer"],
                figure(row["theirs"]),
                figure(row["ratio"]),
            ]
            for row in rows
            if row["name"] == case.name
        ]
    return _lines(["what", "ours", "peer", "theirs", "ours/theirs"], lines)


def _state(case: Case, ours: float, limit: float) -> str:
    """Reached, or by what factor not."""
    if ours <= limit if case.less_is_better else ours >= limit:
        return "reached"
    off = ours / limit if case.less_is_better else limit / ours
    return f"**{off:,.1f} x off**"


def targets_table(cases: Sequence[Case], rows: Sequence[Row]) -> str:
    """One line for each target; one whose peer was not measured says so."""
    lines = []
    for case in cases:
        of_case = [row for row in rows if row["name"] == case.name]
        most = "at most" if case.less_is_better else "at least"
        for target in case.targets if of_case else ():
            line = [case.name, f"{most} {target.text}"]
            beside = [r["theirs"] for r in of_case if r["peer"].startswith(target.peer)]
            ours = of_case[0]["ours"]
            if beside:
                limit = target.factor * (beside[0] if target.peer else 1)
                state = _state(case, ours, limit)
                line += [f"{figure(limit)} {case.unit}", f"{figure(ours)} {case.unit}", state]
            else:
                line += ["", f"{figure(ours)} {case.unit}", "not measured"]
            lines.append(line)
    return _lines(["case", "target", "that is", "ours", "state"], lines)
