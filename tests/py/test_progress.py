"""The progress bar: on a terminal, around what calls print, and nowhere else."""

from __future__ import annotations

import re

import tendril
from conftest import Gate, RunScript, Terminal

MAP = """
    import sys
    import tendril

    @tendril.function
    def work(i):
        if i == 3:
            raise ValueError(i)
        if i == 7:
            print("from call seven")
        return i
"""

# How tqdm moves on a terminal: back to the line's begin, or up and down its lines.
MOVES = re.compile(r"\x1b\[[A-Z0-9]*|[\r\n]+")


def frames(screen: str) -> list[str]:
    """All that was ever drawn, piece by piece."""
    return [part.strip() for part in MOVES.split(screen) if part.strip()]


def test_bar_on_a_terminal(run_in_terminal: Terminal) -> None:
    """Done of total, running and failed, calls a second, time left; at last, all done."""
    ended = run_in_terminal(
        MAP
        + """
    results = work.map(range(40), errors="skip")
    assert sum(results) == sum(range(40)) - 3
    print("the end")
    """
    )
    assert ended.code == 0, ended.out
    bars = [frame for frame in frames(ended.out) if "work:" in frame]
    assert bars
    last = bars[-1]
    assert "100%" in last
    assert "40/40" in last
    assert "call/s" in last
    assert "running=0" in last
    assert "failed=1" in last
    assert frames(ended.out)[-1] == "the end"


def test_bar_moves_while_calls_run(run_in_terminal: Terminal, gate: Gate) -> None:
    """It is drawn although nobody reads the map, and what it shows is how things stand."""
    ended = run_in_terminal(
        MAP
        + """
    import os

    @tendril.function
    def wait(i):
        if i >= 5:
            reader = os.open(os.environ["GATE"], os.O_RDONLY | os.O_NONBLOCK)
            os.set_blocking(reader, True)
            os.read(reader, 1)
        return i

    results = wait.map(range(8))
    with open(os.environ["GATE"]) as gate:
        gate.read()
    assert list(results) == list(range(8))
    """,
        once=("5/8", gate.open),
        GATE=gate.path,
    )
    assert ended.code == 0, ended.out
    assert "8/8" in frames(ended.out)[-1]
    assert re.search(r"5/8 .*failed=0, running=[0-2]", ended.out)


def test_printed_lines_stand_alone_above_the_bar(run_in_terminal: Terminal) -> None:
    ended = run_in_terminal(
        MAP
        + """
    for i in work.map(range(40), errors="skip"):
        pass
    """
    )
    assert ended.code == 0, ended.out
    assert "from call seven" in frames(ended.out)
    assert re.search(r"(^|[\r\n]|\x1b\[A) *from call seven\r?\n", ended.out)


def test_bar_without_a_length(run_in_terminal: Terminal) -> None:
    ended = run_in_terminal(
        MAP
        + """
    list(work.map(iter(range(40)), errors="skip"))
    """
    )
    assert ended.code == 0, ended.out
    last = [frame for frame in frames(ended.out) if "work:" in frame][-1]
    assert "40call" in last
    assert "%" not in last


def test_bar_of_a_cancelled_map_is_closed(run_in_terminal: Terminal) -> None:
    ended = run_in_terminal(
        MAP
        + """
    import itertools
    for i in work.map(itertools.count(10)):
        if i == 100:
            break
    with work.map(itertools.count(10)) as results:
        next(results)
    work.map(range(10, 20)).cancel()
    list(work.map([]))
    print("and no more")
    """
    )
    assert ended.code == 0, ended.out
    assert frames(ended.out)[-1] == "and no more"
    assert "Traceback" not in ended.out


def test_two_bars_at_once(run_in_terminal: Terminal) -> None:
    ended = run_in_terminal(
        MAP
        + """
    @tendril.function(name="other work")
    def other(i):
        return i

    one, two = work.map(range(10, 30)), other.map(range(20))
    assert list(one) == list(range(10, 30)) and list(two) == list(range(20))
    """
    )
    assert ended.code == 0, ended.out
    drawn = frames(ended.out)
    assert any(frame.startswith("work:") and "20/20" in frame for frame in drawn)
    assert any(frame.startswith("other work:") and "20/20" in frame for frame in drawn)


def test_single_calls_and_nested_maps_have_no_bar(run_in_terminal: Terminal) -> None:
    ended = run_in_terminal(
        MAP
        + """
    @tendril.function
    def outer():
        return sum(work.map(range(10, 20)))

    print(work(1), work.submit(2).result(), outer())
    """
    )
    assert (ended.code, ended.out) == (0, "1 2 145\r\n")


def test_no_bar_when_stderr_is_piped(run_in_terminal: Terminal, run_script: RunScript) -> None:
    program = (
        MAP
        + """
    print(sum(work.map(range(10, 20))))
    """
    )
    ended = run_script(program)
    assert (ended.out, ended.err) == ("145\n", "")
    ended = run_in_terminal(program, pipe_stderr=True)
    assert (ended.out, ended.err) == ("145\r\n", "")


def test_bar_can_be_switched_off(run_in_terminal: Terminal) -> None:
    ended = run_in_terminal(
        MAP
        + """
    print(sum(work.map(range(10, 20))))
    """,
        TENDRIL_PROGRESS="0",
    )
    assert (ended.code, ended.out) == (0, "145\r\n")


def test_bar_where_stderr_closes_under_way(run_in_terminal: Terminal) -> None:
    """Nobody loses results for a bar that cannot be drawn."""
    ended = run_in_terminal(
        MAP
        + """
    results = work.map(range(10, 2000))
    next(results)
    sys.stderr.close()
    sys.stderr = None
    print("sum", sum(results))
    """
    )
    assert f"sum {sum(range(11, 2000))}" in ended.out
    assert ended.code == 0


def test_no_bar_in_this_process() -> None:
    """Tests have no terminal: stderr is pytest's."""
    results = tendril.function(lambda x: x).map([1])
    assert results._bar is None
    assert list(results) == [1]
