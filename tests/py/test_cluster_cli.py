"""The commands that make a cluster of this machine: `tendril hub`, `tendril up`, `tendril down`."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import havoc
import pytest
from tendril._session import _supervisor_path

COMMAND_S = 60.0


def tendril(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [_supervisor_path(), *arguments],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


def good(*arguments: str, **environ: str) -> list[str]:
    """Run the command, which must succeed; the lines that it prints."""
    done = tendril(*arguments, **environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def pid_of(folder: Path, name: str) -> int:
    return int((folder / name).read_text().split()[0])


def running(mark: str | None = None) -> list[str]:
    """The command lines of everything that the tests of this module have left running."""
    return [
        " ".join(one.argv)
        for one in havoc.marked(mark or os.environ[havoc.MARK])
        if one.pid != os.getpid()
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a test has its cluster; that is ended after it, whatever became of it."""
    folder = tmp_path / "cluster"
    yield folder
    tendril("down", "--folder", str(folder))
    havoc.wait_until(lambda: not running(), "nothing of the cluster runs")


def up(folder: Path, *arguments: str) -> list[str]:
    return good("up", "-n", "0", "--folder", str(folder), *arguments)


def test_up_and_down(folder: Path) -> None:
    place = f"TENDRIL_PLACE={folder}/client.token"
    assert up(folder) == [f"up in {folder}: a hub and 0 agents", place]
    hub, server = pid_of(folder, "hub.pid"), pid_of(folder, "nats-server.pid")
    assert havoc.alive(hub) and havoc.alive(server)
    token = (folder / "client.token").read_text()
    assert token.startswith("tendril-1-client-")
    assert up(folder) == [f"already up in {folder}: a hub and 0 agents", place]
    assert pid_of(folder, "hub.pid") == hub

    assert good("down", "--folder", str(folder)) == ["down: the hub and 0 agents"]
    assert not havoc.alive(hub) and not havoc.alive(server)
    assert not list(folder.glob("*.pid"))
    assert good("down", "--folder", str(folder)) == [f"nothing is running in {folder}"]

    assert up(folder)[-1] == place
    assert (folder / "client.token").read_text() == token  # it is still good


def test_everything_is_its_owners_alone(folder: Path) -> None:
    up(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {"agent.token", "hub.token", "nats-server.conf"} < {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_secrets_are_not_in_arguments_or_logs(folder: Path) -> None:
    up(folder)
    config = (folder / "nats-server.conf").read_text()
    secrets = [line.split('"')[3] for line in config.splitlines() if "password" in line]
    assert len(secrets) == 3
    text = "\n".join([*running(), *(log.read_text() for log in folder.glob("*.log"))])
    assert "nats-server" in text
    for secret in secrets:
        assert secret not in text


def test_default_folders(tmp_path: Path) -> None:
    for environ, folder in (
        ({"XDG_STATE_HOME": str(tmp_path / "s"), "HOME": "/"}, tmp_path / "s" / "tendril" / "up"),
        ({"XDG_STATE_HOME": "", "HOME": str(tmp_path)}, tmp_path / ".local/state/tendril/up"),
    ):
        assert good("down", **environ) == [f"nothing is running in {folder}"]
        assert good("up", "-n", "0", **environ)[-1] == f"TENDRIL_PLACE={folder}/client.token"
        assert good("down", **environ) == ["down: the hub and 0 agents"]
    done = tendril("up", XDG_STATE_HOME="", HOME="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "HOME is not set; name a folder: --folder DIR" in done.stderr


def test_hub_was_killed(folder: Path) -> None:
    """Its server lives on, and is found by whoever comes next."""
    up(folder)
    server = pid_of(folder, "nats-server.pid")
    os.kill(pid_of(folder, "hub.pid"), signal.SIGKILL)
    havoc.wait_until(lambda: len(running()) == 1, "the hub is gone")
    assert havoc.alive(server)
    assert good("down", "--folder", str(folder)) == ["down: nats-server and 0 agents"]
    assert not havoc.alive(server)


def test_server_was_killed(folder: Path) -> None:
    up(folder)
    server = pid_of(folder, "nats-server.pid")
    os.kill(server, signal.SIGKILL)
    log = folder / "hub.log"
    havoc.wait_until(lambda: "was ended by signal 9" in log.read_text(), "the hub says so")

    def again() -> bool:
        path = folder / "nats-server.pid"
        return path.exists() and pid_of(folder, "nats-server.pid") != server

    havoc.wait_until(again, "the server is started again")
    assert good("down", "--folder", str(folder)) == ["down: the hub and 0 agents"]


def test_folder_is_in_use(folder: Path) -> None:
    up(folder)
    done = tendril("hub", "--folder", str(folder), "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (1, "")
    process = pid_of(folder, "hub.pid")
    assert f"another hub uses the folder {folder}: process {process}" in done.stderr


def test_folder_of_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = tendril("up", "-n", "0", "--folder", str(tmp_path))
    assert done.returncode == 1
    assert f"others may enter {tmp_path} (mode 0755)" in done.stderr
    assert not list(tmp_path.iterdir())


def test_up_without_a_server(folder: Path) -> None:
    done = tendril("up", "--folder", str(folder), TENDRIL_NATS_SERVER="/no/such/nats-server")
    assert (done.returncode, done.stdout) == (1, "")
    assert "hub has ended: tendril hub: cannot start /no/such/nats-server" in done.stderr
    assert not running()


def test_up_is_interrupted(folder: Path, tmp_path: Path) -> None:
    """By a server that never becomes ready; what was started is ended."""
    server = tmp_path / "server"
    server.write_text('#!/bin/sh\ntest "$1" = -v && echo nats-server: v2.10.0 || exec sleep 1000\n')
    server.chmod(0o700)
    process = subprocess.Popen(
        [_supervisor_path(), "up", "--folder", str(folder)],
        env={**os.environ, "TENDRIL_NATS_SERVER": str(server)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        havoc.wait_until((folder / "nats-server.pid").exists, "the server is started")
        done = tendril("down", "--folder", str(folder))
        assert done.returncode == 1
        assert "another 'tendril up' or 'tendril down' is at work" in done.stderr
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=COMMAND_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert "interrupted; what was started is ended" in err
    assert not running()


def test_hub_in_the_foreground(folder: Path, tmp_path: Path) -> None:
    client, agent = tmp_path / "client", tmp_path / "agent"
    where = ["--folder", str(folder), "--listen", "localhost:0"]
    tokens = ["--client-token", str(client), "--agent-token", str(agent)]
    process = subprocess.Popen(
        [_supervisor_path(), "hub", *where, *tokens],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = []
        while not lines or "ready at nats://127.0.0.1:" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        assert "nats-server 2." in lines[0]
        assert client.read_text().startswith("tendril-1-client-")
        assert agent.read_text().startswith("tendril-1-agent-")
        process.send_signal(signal.SIGTERM)
        assert process.wait(COMMAND_S) == 0
    finally:
        process.kill()
        process.communicate()
    assert not running()


def test_port_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = tendril("hub", "--folder", str(folder), "--listen", address)
    assert done.returncode == 1
    assert "is taken by another program; choose another port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hub", "--listen", "0.0.0.0:4222"], "TLS is needed, which is a later step"),
        (["hub", "--listen", "4222"], "'4222' is not HOST:PORT"),
        (["hub", "--listen"], "--listen needs a value"),
        (["hub", "--what"], "'--what' is not an option"),
        (["hub", "-x"], "'-x' is not an option"),
        (["hub", "--ready-fd", "99"], "is not an open descriptor"),
        (["up", "-n", "-1"], "-n '-1' is not a number from 0 to 256"),
        (["up", "-n", "257"], "is not a number from 0 to 256"),
        (["up", "more"], "'more' is not expected"),
        (["down", "-n", "1"], "'-n' is not an option"),
    ],
)
def test_wrong_arguments(arguments: list[str], words: str) -> None:
    done = tendril(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert f"see 'tendril {arguments[0]} --help'" in done.stderr


@pytest.mark.parametrize("command", ["hub", "up", "down"])
def test_help(command: str) -> None:
    lines = good(command, "--help")
    assert lines[0].startswith(f"usage: tendril {command}")
    assert "Example:" in lines
    assert any(line.split()[:1] == [command] for line in good("help"))
