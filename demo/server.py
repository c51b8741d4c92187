"""The local S3 server: moto in a process of its own, on a free loopback port.

It is another process so that its Python work does not share an interpreter lock with the
builtin `map` it serves, and it lives exactly as long as its parent: it reads its standard
input, which nobody ever writes, and ends when that closes. The kernel closes it for every
way in which a parent can die, kill -9 included. Its port is chosen by the kernel and
reported by one line on standard output, which is also the sign that it listens: there is
no race for the port and nothing to poll.
"""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import s3fs

ROOT = Path(__file__).resolve().parent.parent
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 5.0
LOG_TAIL_BYTES = 4000
# moto takes any key; these are here so that no client looks for a real one.
KEY, SECRET, REGION = "demo", "demo", "us-east-1"
# Settings of the person's own cloud, which must neither reach the demo nor be reached by it.
FOREIGN_PREFIXES = ("AWS_", "FSSPEC_", "BOTO_")


class S3Server:
    """A context manager: the server listens inside it, and is gone after it."""

    url: str

    def __enter__(self) -> Self:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demo.server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self.url = self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def environ(self) -> dict[str, str]:
        """A copy of this process's environment that sends every S3 client to this server."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_PREFIXES)}
        return environ | {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "FSSPEC_CONFIG_DIR": os.devnull,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def filesystem(self) -> s3fs.S3FileSystem:
        """A client of this server, whatever the environment says; it caches no listing."""
        return s3fs.S3FileSystem(
            endpoint_url=self.url,
            key=KEY,
            secret=SECRET,
            config_kwargs={"region_name": REGION},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def _wait_ready(self) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(START_DEADLINE_S):
                raise RuntimeError(f"the S3 server was not ready within {START_DEADLINE_S:.0f} s")
        url = self._process.stdout.readline().decode().strip()
        if not url:
            raise RuntimeError(f"the S3 server ended as it started:\n{self._log_tail()}")
        return url

    def _log_tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace")

    def _stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


def serve() -> None:
    """The server process: listen, say where, and end with the parent."""
    # A terminal sends Ctrl-C to the whole group; only the parent decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from moto.server import ThreadedMotoServer  # only this process needs moto

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    serve()
