"""Installed packages that do odd things when they are imported: runners come up some other way, or
the call fails with words. And interpreters, folders and commands that are not there."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from havoc import Program

# The package knows where it is imported: in the caller, in a zygote, or in a runner of its own.
WHERE = """
import os, signal, sys, threading, time
_words = open("/proc/self/cmdline").read().split("\\0")
in_zygote = "zygote" in _words
in_caller = not in_zygote and "runner" not in _words
answer = 42
"""

# Functions of a program that imports the package; `how` tells how a runner was started.
PREAMBLE = """
import os, sys, time
sys.path.insert(0, os.path.abspath("site-packages"))
import odd
import tendril

@tendril.function(local=True)
def ask(x=0):
    return odd.answer + x

@tendril.function(local=True)
def how():
    odd.answer
    words = open("/proc/self/cmdline").read().split("\\0")
    return "forked" if "zygote" in words else "executed"

@tendril.function(local=True)
def other():
    return "fine"
"""


def program(package: str, text: str, folder: Path, **more: str) -> Program:
    """A program with a package `odd` that has these lines, installed as far as anybody can see."""
    site = folder / "site-packages"
    site.mkdir()
    (site / "odd.py").write_text(WHERE + package)
    return Program(PREAMBLE + text, folder, **more)


def run(package: str, text: str, folder: Path, **more: str) -> str:
    """Its output; it must end well and leave nothing."""
    with program(package, text, folder, **more) as one:
        code, out, err = one.finish()
        assert (code, err) == (0, "")
        assert one.left() == []
    return out


def test_quiet_package_is_imported_once(tmp_path: Path) -> None:
    """By the zygote, for all runners."""
    package = "open('imports', 'a').write('zygote ' if in_zygote else 'caller ')"
    text = "print(how(), sum(ask.map(range(10)))); print(open('imports').read())"
    assert run(package, text, tmp_path) == "forked 465\ncaller zygote \n"


def test_package_starts_threads(tmp_path: Path) -> None:
    """A zygote with threads must not fork: runners are programs of their own, alike in all else."""
    package = "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
    text = """
print(how(), sum(ask.map(range(20))))

@tendril.function(local=True)
def end(way):
    odd.answer
    print("about to end")
    way()
import signal
for way in (lambda: os._exit(3), lambda: sys.exit(4), lambda: os.kill(os.getpid(), signal.SIGSEGV)):
    try:
        end(way)
    except tendril.RunnerCrashed as error:
        print(error.exit_code, error.signal, repr(error.last_output))
for error in end.map([lambda: 1 / 0, lambda: time.sleep(100)], errors="return", timeout=1):
    print(type(error).__name__)

@tendril.function(local=True)
def nested():
    return odd.answer + sum(ask.map(range(3)))
print(nested(), ask(1))
"""
    out = run(package, text, tmp_path).splitlines()
    assert out[0] == "executed 1030"
    assert [line for line in out if "about" not in line or "'" in line][1:] == [
        "3 None 'about to end\\n'",
        "4 None 'about to end\\n'",
        "None SIGSEGV 'about to end\\n'",
        "ZeroDivisionError",
        "TimedOut",
        "171 43",
    ]


@pytest.mark.parametrize(
    "death", ["os.abort()", "os._exit(0)", "sys.exit('no')"], ids=["abort", "exit", "sys.exit"]
)
def test_package_ends_the_zygote(death: str, tmp_path: Path) -> None:
    package = f"if in_zygote: {death}"
    text = "print(how(), sum(ask.map(range(10))), other())"
    assert run(package, text, tmp_path) == "executed 465 fine\n"


def test_package_ends_every_runner(tmp_path: Path) -> None:
    """Each call fails and says by what; other functions work."""
    package = "if not in_caller: os.kill(os.getpid(), signal.SIGSEGV)"
    text = """
for error in ask.map(range(3), errors="return"):
    print(type(error).__name__, error.signal)
"""
    assert run(package, text, tmp_path) == "RunnerCrashed SIGSEGV\n" * 3


def test_package_raises_in_runners(tmp_path: Path) -> None:
    package = "if not in_caller: raise ValueError('not here')"
    text = """
try:
    ask()
except ValueError as error:
    print(error, "odd.py" in str(error.__cause__))
print(other())
"""
    assert run(package, text, tmp_path) == "not here True\nfine\n"


def test_package_hangs_in_the_zygote(tmp_path: Path) -> None:
    package = "if in_zygote: time.sleep(1000)"
    text = "print(how(), sum(ask.map(range(10))))"
    out = run(package, text, tmp_path, TENDRIL_IMPORT_TIMEOUT="1")
    assert out == "executed 465\n"


def test_package_hangs_everywhere(tmp_path: Path) -> None:
    """Then it is the call that hangs, and its timeout ends it."""
    package = "if not in_caller: time.sleep(1000)"
    text = """
try:
    next(ask.map([1], timeout=0.5))
except tendril.TimedOut as error:
    print(error.message)
"""
    out = run(package, text, tmp_path, TENDRIL_IMPORT_TIMEOUT="1")
    assert "ran longer than its timeout" in out


def test_package_hangs_in_fork(tmp_path: Path) -> None:
    """What it has registered for forks never returns: then there is no forking."""
    package = "if in_zygote: os.register_at_fork(before=lambda: time.sleep(1000))"
    text = "print(how(), sum(ask.map(range(10))))"
    out = run(package, text, tmp_path, TENDRIL_IMPORT_TIMEOUT="1")
    assert out == "executed 465\n"


@pytest.mark.parametrize(
    "package",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "if in_zygote: os.closerange(0, 3)",
        "if in_zygote: sys.stdout = sys.stderr = None",
        "if in_zygote: sys.stdout.close()",
        "if in_zygote: os.chdir('/'); os.environ.clear()",
        "if in_zygote: print('x' * 1_000_000)",
        "if in_zygote: sys.setrecursionlimit(200); import gc; gc.disable()",
        "if in_zygote: signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))",
    ],
    ids=["SIGCHLD", "fds", "no stdout", "closed stdout", "chdir", "output", "limits", "mask"],
)
def test_package_is_careless(package: str, tmp_path: Path) -> None:
    """Runners come up all the same, and what they print arrives."""
    text = """
@tendril.function(local=True)
def say(x):
    print("said", odd.answer, x)
    os.system("echo from a child")
    return x
print(list(say.map(range(2), ordered=True)), how())
"""
    out = run(package, text, tmp_path).splitlines()
    assert sorted(out[:4]) == ["from a child"] * 2 + ["said 42 0", "said 42 1"]
    assert out[4].startswith("[0, 1]")


# -- what is not there -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/no/such/python", "/etc", "/etc/passwd"])
def test_interpreter_missing(path: str, tmp_path: Path) -> None:
    text = f"""
sys.executable = {path!r}
try:
    other()
except tendril.NotStarted as error:
    print(error)
"""
    out = run("", text, tmp_path)
    assert out.startswith("other: call 0 could not be started: ")
    assert path in out


def test_interpreter_fails(tmp_path: Path) -> None:
    """One that does not come up: its last words are in the error."""
    broken = tmp_path / "broken-python"
    broken.write_text("#!/bin/sh\necho 'no libpython here' >&2\nexit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    text = """
sys.executable = os.path.abspath("broken-python")
try:
    other()
except tendril.NotStarted as error:
    print(error)
"""
    out = run("", text, tmp_path)
    assert "exited with code 3" in out and "no libpython here" in out


def test_folder_missing(tmp_path: Path) -> None:
    text = """
here = os.getcwd()
os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
try:
    print(other())
except (tendril.TendrilError, FileNotFoundError) as error:
    print("fine" if "folder" in str(error) or "directory" in str(error) else error)
os.chdir(here)
print(other())
"""
    assert run("", text, tmp_path) == "fine\nfine\n"


@pytest.mark.parametrize("command", ["/bin/false", "/bin/true", "/bin/cat"])
def test_supervisor_is_something_else(command: str, tmp_path: Path) -> None:
    """It does not speak, or not with us: an error, soon."""
    text = """
began = time.monotonic()
try:
    other()
except tendril.TendrilError as error:
    print(type(error).__name__, "supervisor" in str(error), time.monotonic() - began < 10)
"""
    out = run("", text, tmp_path, TENDRIL_COMMAND=command)
    assert out == "NotStarted True True\n"


def test_supervisor_cannot_be_run(tmp_path: Path) -> None:
    """A file that may be executed and cannot be."""
    bad = tmp_path / "tendril"
    bad.write_bytes(b"\x7fELF nonsense")
    bad.chmod(0o755)
    text = """
try:
    other()
except tendril.TendrilError as error:
    print(type(error).__name__, error)
"""
    out = run("", text, tmp_path, TENDRIL_COMMAND=str(bad))
    assert out.startswith("NotStarted")
    assert str(bad) in out


def test_same_interpreter_as_the_caller(tmp_path: Path) -> None:
    text = "print(tendril.function(lambda: sys.executable, local=True)() == sys.executable)"
    assert run("", text, tmp_path) == "True\n"
    assert sys.executable


def test_import_is_light(tmp_path: Path) -> None:
    """What takes long to import, and is not needed to define a function, waits until it is."""
    text = """
import sys
before = set(sys.modules)
import tendril
@tendril.function(local=True)
def f():
    return 1
heavy = "asyncio cloudpickle concurrent.futures dataclasses hashlib inspect logging socket"
heavy += " sysconfig tomllib tqdm traceback"
print(sorted((set(sys.modules) - before) & set(heavy.split())))
"""
    with Program(text, tmp_path) as one:
        code, out, err = one.finish()
        assert (code, out, err) == (0, "[]\n", "")
