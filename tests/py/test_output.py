"""What calls write reaches the caller: by line, in order, whole, and told apart by call."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

import havoc
import pytest
import tendril
from conftest import Gate, RunScript

Captured = pytest.CaptureFixture[str]


# -- from wherever it comes -----------------------------------------------------------------------


def test_print_and_streams(capsys: Captured) -> None:
    @tendril.function
    def work() -> None:
        print("printed", 1, sep=": ")
        print("to stderr", file=sys.stderr)
        sys.stdout.write("written\n")
        sys.stderr.write("written to stderr\n")
        tendril.print("by tendril.print")

    work()
    out, err = capsys.readouterr()
    assert out == "printed: 1\nwritten\nby tendril.print\n"
    assert err == "to stderr\nwritten to stderr\n"


def test_logging_and_warnings(capsys: Captured) -> None:
    @tendril.function
    def work() -> None:
        logging.getLogger("mine").warning("unconfigured")
        logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s", force=True)
        logging.getLogger("mine").info("configured")
        warnings.warn("look out", stacklevel=1)

    work()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unconfigured\nmine configured\n")
    assert "UserWarning: look out" in err


def test_c_code(capsys: Captured) -> None:
    """C's own buffer must not hold a line back, nor put it behind what came later."""

    @tendril.function
    def work() -> None:
        libc = ctypes.CDLL(None)
        print("python 1")
        libc.printf(b"c %d\n", ctypes.c_int(2))
        print("python 3")
        libc.puts(b"c 4")
        os.write(1, b"descriptor 5\n")
        libc.printf(b"c no newline")

    work()
    assert capsys.readouterr().out.splitlines() == [
        "python 1",
        "c 2",
        "python 3",
        "c 4",
        "descriptor 5",
        "c no newline",
    ]


def test_child_processes(capsys: Captured) -> None:
    @tendril.function
    def work() -> None:
        print("before")
        subprocess.run("echo child; echo problem >&2", shell=True, check=True)
        subprocess.run([sys.executable, "-c", "print('grandchild')"], check=True)
        os.system("echo system")
        print("after")

    work()
    out, err = capsys.readouterr()
    assert out == "before\nchild\ngrandchild\nsystem\nafter\n"
    assert err == "problem\n"


def test_threads_of_a_call(capsys: Captured) -> None:
    @tendril.function
    def work() -> None:
        threads = [
            threading.Thread(target=lambda k=k: [print(f"thread {k} line {i}") for i in range(50)])
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    work()
    out = capsys.readouterr().out
    for k in range(4):
        assert re.findall(rf"thread {k} line (\d+)", out) == [str(i) for i in range(50)]


# -- order, lines, calls --------------------------------------------------------------------------


def test_output_is_there_before_the_result(capsys: Captured) -> None:
    """A call's lines stand before what the caller prints next, for call, map and future."""

    @tendril.function
    def work(i: int) -> int:
        print(f"call {i}")
        return i

    for i in range(50):
        work(i)
        print(f"got {i}")
    assert capsys.readouterr().out.splitlines() == [
        line for i in range(50) for line in (f"call {i}", f"got {i}")
    ]
    for i in work.map(range(50)):
        print(f"got {i}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 100
    for i in range(50):
        assert lines.index(f"call {i}") < lines.index(f"got {i}")
    for i in range(20):
        work.submit(i).result()
        print(f"got {i}")
    lines = capsys.readouterr().out.splitlines()
    for i in range(20):
        assert lines.index(f"call {i}") < lines.index(f"got {i}")


def test_output_comes_while_the_call_runs(gate: Gate, capsys: Captured) -> None:
    @tendril.function
    def work() -> None:
        print("working")
        print("still working", file=sys.stderr)
        gate.wait()

    out, err = "", ""

    def seen() -> bool:
        nonlocal out, err
        more = capsys.readouterr()
        out, err = out + more.out, err + more.err
        return "working\n" in out and "still working\n" in err

    future = work.submit()
    havoc.wait_until(seen, "its lines arrive")
    assert not future.done()
    gate.open()
    future.result(havoc.PATIENCE_S)


def test_output_of_a_map_that_nobody_reads_yet_comes_too(gate: Gate, capsys: Captured) -> None:
    @tendril.function
    def work(i: int) -> None:
        print(f"call {i}")
        gate.wait()

    out = ""

    def seen() -> bool:
        nonlocal out
        out += capsys.readouterr().out
        return "call 0\n" in out

    with work.map([0]) as results:
        havoc.wait_until(seen, "its line arrives without a reader")
        gate.open()
        assert list(results) == [None]


def test_lines_of_calls_do_not_mix(capfd: Captured) -> None:
    """Of many calls at once, each line arrives whole, and each call's lines in their order."""

    @tendril.function
    def work(i: int) -> None:
        for n in range(100):
            sys.stdout.write(f"<{i} ")
            sys.stdout.flush()  # lines in parts, on purpose
            sys.stdout.write(f"{n}>\n")
            if n % 10 == 0:
                os.write(2, f"[{i} {n}]\n".encode())

    list(work.map(range(40)))
    out, err = capfd.readouterr()
    numbers: dict[str, list[int]] = {}
    for line in out.splitlines():
        match = re.fullmatch(r"<(\d+) (\d+)>", line)
        assert match, line
        numbers.setdefault(match[1], []).append(int(match[2]))
    assert len(numbers) == 40
    assert all(lines == list(range(100)) for lines in numbers.values())
    assert all(re.fullmatch(r"\[\d+ \d+\]", line) for line in err.splitlines())
    assert len(err.splitlines()) == 400


def test_partial_last_line_ends_with_its_call(capsys: Captured) -> None:
    @tendril.function
    def work(i: int) -> None:
        print(f"no newline {i}", end="")

    results = work.map(range(5))
    list(results)
    assert sorted(capsys.readouterr().out.splitlines()) == [f"no newline {i}" for i in range(5)]
    assert [results.logs(i) for i in range(5)] == [f"no newline {i}" for i in range(5)]


def test_logs_of_packed_calls_are_exact() -> None:
    """However calls are packed together, what one wrote is kept under its own number."""

    @tendril.function
    def work(i: int) -> None:
        for n in range(i % 4):
            print(f"call {i} line {n}")
        if i % 5 == 0:
            sys.stderr.write(f"end of {i}")

    results = work.map(range(400))
    list(results)
    for i in range(400):
        lines = [f"call {i} line {n}\n" for n in range(i % 4)]
        assert results.logs(i, "stdout") == "".join(lines)
        assert results.logs(i, "stderr") == (f"end of {i}" if i % 5 == 0 else "")


def test_logs_of_the_last_attempts_and_of_failures(capsys: Captured) -> None:
    @tendril.function(retries=1)
    def work(i: int) -> None:
        print(f"attempt at {i}")
        raise ValueError(i)

    results = work.map(range(2), errors="skip")
    assert list(results) == []
    for i in range(2):
        assert results.logs(i) == f"attempt at {i}\n" * 2


def test_logs_have_a_maximum_and_say_what_went() -> None:
    @tendril.function
    def work(i: int) -> None:
        for _ in range(200):
            print("x" * 9_999)

    results = work.map(range(15))
    list(results)
    kept = results.logs(14)
    note, _, text = kept.partition("\n")
    assert re.fullmatch(r"\[\d+ bytes of this map's older output were dropped\]", note)
    assert text == ("x" * 9_999 + "\n") * 200
    assert len(results.logs(0)) < 200 * 10_000


# -- what is hard to carry ------------------------------------------------------------------------


def test_output_before_a_crash(capfd: Captured) -> None:
    """Whatever reached the descriptor, or stood in C's buffer as a line, is there."""

    @tendril.function
    def work() -> None:
        print("python line")
        ctypes.CDLL(None).puts(b"c line")
        os.write(1, b"no newline")
        os.write(2, b"error line\n")
        os.abort()

    with pytest.raises(tendril.RunnerCrashed) as caught:
        work()
    out, err = capfd.readouterr()
    assert out == "python line\nc line\nno newline\n"
    assert err == "error line\n"
    assert "c line\n" in caught.value.last_output


def test_unicode(capsys: Captured) -> None:
    text = "snow ☃ \U0001f600 Ünïcödé 日本語"

    @tendril.function
    def work() -> None:
        print(text)
        print("lone \udc80 surrogate")

    results = tendril.function(lambda _: work.local()).map([0])
    list(results)
    out = capsys.readouterr().out
    assert text + "\n" in out
    assert "lone \\udc80 surrogate\n" in out
    assert results.logs(0).startswith(text)


def test_long_lines_are_whole_in_the_log_and_lose_nothing(capsys: Captured) -> None:
    """Longer than what is kept of one line: it may be broken, not within a character."""
    text = "\u65e5" * 100_000

    @tendril.function
    def work(_: int) -> None:
        print(text)

    results = work.map([0])
    list(results)
    assert results.logs(0) == text + "\n"
    assert capsys.readouterr().out.replace("\n", "") == text


def test_binary_junk(capsys: Captured) -> None:
    junk = bytes(range(256)) * 20

    @tendril.function
    def work(_: int) -> None:
        os.write(1, junk + b"\n")
        sys.stdout.buffer.write(b"\xff\xfe\n")
        os.write(2, b"\0\0\0")

    results = work.map([0])
    assert list(results) == [None]
    assert results.logs(0, "stdout") == (junk + b"\n\xff\xfe\n").decode("utf-8", "replace")
    assert results.logs(0, "stderr") == "\0\0\0"
    assert "ABCDEFG" in capsys.readouterr().out


def test_function_may_treat_its_streams_badly(capsys: Captured) -> None:
    """Closed, replaced or redirected ones are that call's affair and nobody else's."""

    @tendril.function
    def work(i: int) -> int:
        if i == 1:
            sys.stdout.close()
        if i == 2:
            os.close(1)
        if i == 3:
            sys.stdout = None
        if i == 4:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if i == 5:
            os.closerange(0, 3)
        return i

    @tendril.function
    def speak(i: int) -> str:
        print(f"call {i}")
        return "spoken"

    assert list(work.map(range(6))) == list(range(6))
    results = speak.map(range(20))
    assert list(results) == ["spoken"] * 20
    for i in range(20):
        assert results.logs(i) == f"call {i}\n"
    capsys.readouterr()


def test_redirected_stdout_within_a_call(capsys: Captured) -> None:
    import contextlib
    import io

    @tendril.function
    def work() -> str:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            print("caught")
        return text.getvalue()

    assert work() == "caught\n"
    assert capsys.readouterr().out == ""


def test_million_lines_of_one_call(run_script: RunScript) -> None:
    """Neither lost nor deadlocked, and with bounded memory here."""
    ended = run_script("""
        import resource, sys
        import tendril

        @tendril.function
        def work(n):
            for i in range(n):
                print(i)

        work(10)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work(1_000_000)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print((after - before) >> 10, file=sys.stderr)
    """)
    assert ended.out == "".join(f"{i}\n" for n in (10, 1_000_000) for i in range(n))
    assert int(ended.err) < 60  # MiB: 16 for the log, 4 that wait, and what they are made of


def test_output_that_nobody_takes_in_time_waits_at_its_source(run_script: RunScript) -> None:
    """Behind a slow reader runners wait; memory does not grow, and nothing is lost."""
    ended = run_script("""
        import resource, sys, threading, time
        import tendril

        class Slow:
            encoding = "utf-8"
            lines = 0
            may = threading.Event()
            def write(self, text):
                self.may.wait()
                self.lines += text.count("\\n")
            def flush(self): pass

        @tendril.function
        def work(i):
            text = f"call {i} " + "x" * 1_000
            for _ in range(20_000):
                print(text)

        list(tendril.function(len).map(["a"]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        screen, sys.stdout = sys.stdout, Slow()
        results = work.map(range(4))
        deadline = time.monotonic() + 30
        seen = 0
        while time.monotonic() < deadline:  # until the runners stand still: all is full
            time.sleep(0.2)
            now = len(results.logs(0)) + len(results.logs(1))
            if 0 < now == seen:
                break
            seen = now
        assert results.stats().finished == 0
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        Slow.may.set()
        list(results)
        slow, sys.stdout = sys.stdout, screen
        print(slow.lines, held >> 10)
    """)
    lines, held = map(int, ended.out.split())
    assert lines == 80_000
    assert held < 60  # MiB, of 80 that were written


# -- the caller's own streams ---------------------------------------------------------------------

TALK = """
    import sys
    import tendril

    @tendril.function
    def work(i):
        print("call", i, "\\u2603")
        return i
"""


def test_callers_stdout_is_taken_as_it_is_at_the_moment(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    class Upper:
        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str) -> None:
            self.text += text.upper()

        def flush(self) -> None:
            pass

    upper: Any = Upper()
    work = tendril.function(lambda: print("quiet"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", upper)
        work()
    work()
    assert upper.text == "QUIET\n"
    assert capsys.readouterr().out == "quiet\n"


@pytest.mark.parametrize(
    "how", ["sys.stdout.close()", "sys.stdout = None", "__import__('os').close(1)"]
)
def test_without_a_stdout_results_come_all_the_same(run_script: RunScript, how: str) -> None:
    ended = run_script(
        TALK
        + f"""
    {how}
    results = work.map(range(100))
    print(list(results) == list(range(100)), work(7), work.submit(8).result(), file=sys.stderr)
    print(repr(results.logs(99)), file=sys.stderr)
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout = None  # what it holds cannot be written: that is the program's own error
        """,
        check=False,
    )
    assert ended.err.startswith("True 7 8\n'call 99 \u2603\\n'\n")


def test_reader_that_goes_away_does_not_stop_the_work(run_script: RunScript) -> None:
    """As in `program | head -1`."""
    path = run_script.write(
        TALK
        + """
    results = list(work.map(range(2000)))
    print(results == list(range(2000)), file=sys.stderr)
    """
    )
    process = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "call 0 \u2603\n"
    process.stdout.close()
    assert process.stderr.readline() == "True\n"
    process.stderr.close()
    process.wait(havoc.PATIENCE_S)


def test_stdout_of_a_poor_encoding(run_script: RunScript) -> None:
    ended = run_script(TALK + "\n    work(1)", PYTHONIOENCODING="ascii")
    assert ended.out == "call 1 \\u2603\n"


def test_output_of_a_call_whose_result_nobody_waits_for(run_script: RunScript) -> None:
    """A future that was let go still prints, until the program ends."""
    ended = run_script(
        TALK
        + """
    import concurrent.futures
    futures = [work.submit(i) for i in range(50)]
    concurrent.futures.wait(futures)
    """
    )
    assert sorted(ended.out.splitlines()) == sorted(f"call {i} \u2603" for i in range(50))


def test_time_passes_for_others_while_one_call_talks(gate: Gate) -> None:
    """Output of one call must not starve the results of another."""

    @tendril.function
    def chatter(path: str) -> None:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        while True:
            try:
                if os.read(reader, 1) == b"":
                    return
            except BlockingIOError:
                print("chatter " * 10)

    future = chatter.submit(gate.path)
    square = tendril.function(lambda x: x * x)
    started = time.monotonic()
    assert [square(i) for i in range(20)] == [i * i for i in range(20)]
    assert time.monotonic() - started < havoc.PATIENCE_S
    gate.open()
    future.result(havoc.PATIENCE_S)
