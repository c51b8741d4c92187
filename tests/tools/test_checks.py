"""The checks of `make lint` catch what they are for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(tool: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("name", "include", "allowed"),
    [
        ("src/os/loop.c", '"base/heap.h"', True),
        ("src/os/loop.c", '"os/loop.h"', True),
        ("src/os/loop.c", "<unistd.h>", True),
        ("src/os/loop.c", '"wire/message.h"', False),  # a sibling
        ("src/base/buf.c", '"os/clock.h"', False),  # upwards
        ("src/wire/message.c", "<time.h>", False),  # not pure
        ("src/wire/message.c", '"os/clock.h"', False),
        ("src/task/sched.c", '"wire/message.h"', True),
        ("src/task/sched.c", '"os/clock.h"', False),
        ("src/task/sched.c", "<pthread.h>", False),
        ("src/pool/pool.c", '"task/sched.h"', True),
        ("src/pool/pool.c", '"bus/bus.h"', False),
        ("src/bus/bus.c", '"pool/pool.h"', False),
        ("src/node/node.c", '"bus/bus.h"', True),
        ("src/client/client.c", '"node/node.h"', True),
        ("src/client/client.c", '"hub/hub.h"', False),
        ("src/cli/main.c", '"client/client.h"', True),
        ("src/cli/main.c", '"surprise/x.h"', False),
        ("src/surprise/x.c", '"base/buf.h"', False),
        ("python/_tendril/module.c", '"state.h"', True),
        ("python/_tendril/module.c", '"client/client.h"', True),
        ("python/_tendril/module.c", '"cli/main.h"', False),
    ],
)
def test_layers(tmp_path: Path, name: str, include: str, allowed: bool) -> None:
    (tmp_path / "python" / "_tendril").mkdir(parents=True)
    write(tmp_path, {"src/base/attr.h": "", name: f"/* first line */\n#include {include}\n"})
    result = run("check-layers", tmp_path)
    assert (result.returncode == 0) == allowed, result.stdout
    if not allowed:
        assert name.rsplit("/", 1)[1] in result.stdout


def test_layers_without_sources_fail(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    assert run("check-layers", tmp_path).returncode != 0


@pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("ar"), reason="needs gcc, binutils")
@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("int td_fine(void) { return 0; }", ""),
        ("int tendril_fine(void) { return 0; }", ""),
        ("static int hidden(void); int td_x(void) { return 0; }", ""),
        ("int careless(void) { return 0; }", "symbol careless"),
        ("int td_x(const char *t) { return atoi(t); }", "atoi()"),
        ("void *td_x(void) { return malloc(1); }", "malloc()"),
        ('/* strcpy() is banned */ const char *td_x = "sprintf(";', ""),
        ("struct s { int (*free)(int); }; int td_x(struct s *s) { return s->free(1); }", ""),
    ],
)
def test_names(tmp_path: Path, code: str, complaint: str) -> None:
    write(tmp_path, {"src/base/x.c": code + "\n"})
    source, compiled = tmp_path / "src/base/x.c", tmp_path / "x.o"
    library = tmp_path / "libx.a"
    prelude = ["-include", "stdlib.h"]
    subprocess.run(["gcc", *prelude, "-w", "-c", source, "-o", compiled], check=True)
    subprocess.run(["ar", "rc", library, compiled], check=True)
    result = run("check-names", library, tmp_path)
    assert (result.returncode == 0) == (not complaint), result.stdout
    assert complaint in result.stdout


DOCUMENT = """# Architecture

`td_not_looked_at_here()` is in another section.

## The journey of a call

1. {span}

### In detail

More.

## Next

`td_nor_here()`
"""


@pytest.mark.parametrize(
    ("span", "exists"),
    [
        ("td_pool_submit()", True),
        ("td_pool_submit", True),
        ("td_pool_vanished()", False),
        ("on_ready()", True),
        ("pool.c", True),
        ("src/pool/pool.c", True),
        ("pol.c", False),
        ("_map.submit", True),
        ("tendril._map.Map.cancel()", True),
        ("_map.vanished", False),
        ("_gone.submit", False),
        ("free text", True),
    ],
)
def test_docs(tmp_path: Path, span: str, exists: bool) -> None:
    write(
        tmp_path,
        {
            "ARCHITECTURE.md": DOCUMENT.format(span=f"`{span}`"),
            "src/pool/pool.c": "int td_pool_submit(int x)\n{\n}\nstatic void on_ready(void)\n",
            "python/tendril/_map.py": "class Map:\n    def cancel(self): ...\ndef submit(): ...\n",
        },
    )
    result = run("check-docs", tmp_path)
    assert (result.returncode == 0) == exists, result.stdout + result.stderr


def test_docs_need_the_section(tmp_path: Path) -> None:
    write(tmp_path, {"ARCHITECTURE.md": "# Architecture\n", "src/x.c": ""})
    assert run("check-docs", tmp_path).returncode != 0
