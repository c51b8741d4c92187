"""The contenders: what each is started with, and the ways to use it that are measured.

All have two workers and no more, listen on loopback only, and show no dashboard. A way has the name
that it gets in the table; the first of several is how most people would write it, and the others
are settings that are better for some work.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

WORKERS = 2

Function = Callable[[Any], Any]
Call = Callable[[Function, Any], Any]
Map = Callable[[Function, Any], Iterable[Any]]

# Before a peer is imported. Ray has no switch for loopback on Linux but the one named here.
ENVIRONMENT = {
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TENDRIL_PLACE": "local",
    "TENDRIL_PROGRESS": "0",
}


@dataclass(frozen=True)
class Peer:
    """A started contender.

    calls: one call and its result. large: further ways for a large argument. maps: the results of
    many calls in order; best: the same with a number of calls that travel together, which is
    filled into the name. streams: maps that begin before their input ends. queues: submit the
    inputs and give back what has to be kept for their results.
    """

    calls: dict[str, Call] = field(default_factory=dict)
    large: dict[str, Call] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)
    best: dict[str, Callable[[Function, Any, int], Iterable[Any]]] = field(default_factory=dict)
    streams: dict[str, Map] = field(default_factory=dict)
    queues: dict[str, Map] = field(default_factory=dict)


@contextmanager
def tendril() -> Iterator[Peer]:
    import tendril

    function = functools.cache(tendril.function)
    yield Peer(
        calls={"ours": lambda fn, x: function(fn)(x)},
        maps={"ours": lambda fn, xs: function(fn).map(xs)},
        streams={"ours": lambda fn, xs: function(fn).map(xs)},
        queues={
            "ours": lambda fn, xs: function(fn).map(xs),
            "Tendril, submit": lambda fn, xs: [function(fn).submit(x) for x in xs],
        },
    )


@contextmanager
def pool() -> Iterator[Peer]:
    with multiprocessing.Pool(WORKERS) as pool:
        yield Peer(
            calls={"Pool.apply": lambda fn, x: pool.apply(fn, (x,))},
            maps={
                "Pool.map, default": pool.map,
                "Pool.map, chunksize=1": lambda fn, xs: pool.map(fn, xs, 1),
            },
            best={"Pool.map, best: chunksize={:,}": pool.map},
            streams={
                "Pool.imap, default": pool.imap,
                "Pool.imap, chunksize=1,000": lambda fn, xs: pool.imap(fn, xs, 1000),
            },
            queues={
                "Pool.apply_async": lambda fn, xs: [pool.apply_async(fn, (x,)) for x in xs],
            },
        )


@contextmanager
def executor() -> Iterator[Peer]:
    executor = ProcessPoolExecutor(WORKERS)
    try:
        yield Peer(
            calls={"ProcessPoolExecutor": lambda fn, x: executor.submit(fn, x).result()},
            maps={"ProcessPoolExecutor, default": executor.map},
            best={
                "ProcessPoolExecutor, best: chunksize={:,}": lambda fn, xs, size: executor.map(
                    fn, xs, chunksize=size
                )
            },
            streams={"ProcessPoolExecutor, default": executor.map},
            queues={
                "ProcessPoolExecutor": lambda fn, xs: [executor.submit(fn, x) for x in xs],
            },
        )
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def joblib() -> Iterator[Peer]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import ProcessPoolExecutor as Loky
    from joblib.externals.loky import get_reusable_executor

    loky = Loky(WORKERS)  # it starts its workers when it is first used

    def stream(fn: Function, xs: Any) -> Iterable[Any]:
        return Parallel(WORKERS, return_as="generator")(delayed(fn)(x) for x in xs)

    with Parallel(WORKERS) as parallel:
        yield Peer(
            calls={
                "joblib": lambda fn, x: parallel([delayed(fn)(x)])[0],
                "loky, submit": lambda fn, x: loky.submit(fn, x).result(),
            },
            maps={"joblib, default": lambda fn, xs: parallel(delayed(fn)(x) for x in xs)},
            best={
                "joblib, best: batch_size={:,}": lambda fn, xs, size: Parallel(
                    WORKERS, batch_size=size, pre_dispatch="all"
                )(delayed(fn)(x) for x in xs)
            },
            streams={"joblib, return_as=generator": stream},
            queues={"loky, submit": lambda fn, xs: [loky.submit(fn, x) for x in xs]},
        )
    loky.shutdown(kill_workers=True)
    get_reusable_executor(WORKERS).shutdown(kill_workers=True)  # that of Parallel


@contextmanager
def dask() -> Iterator[Peer]:
    import dask.bag
    from distributed import Client, LocalCluster

    def in_bag(fn: Function, xs: Any, size: int) -> Iterable[Any]:
        return dask.bag.from_sequence(xs, partition_size=size).map(fn).compute()

    with (
        tempfile.TemporaryDirectory(prefix="dask-", ignore_cleanup_errors=True) as folder,
        dask.config.set({"temporary-directory": folder}),
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        # Not pure: else equal calls would be made once.
        yield Peer(
            calls={"Dask": lambda fn, x: client.submit(fn, x, pure=False).result()},
            large={
                "Dask, scatter": lambda fn, x: client.submit(
                    fn, client.scatter(x, hash=False), pure=False
                ).result()
            },
            maps={
                "Dask, default": lambda fn, xs: client.gather(client.map(fn, xs, pure=False)),
                "Dask, batch_size=1,000": lambda fn, xs: client.gather(
                    client.map(fn, xs, pure=False, batch_size=1000)
                ),
            },
            best={"Dask bag, best: partition_size={:,}": in_bag},
            streams={
                "Dask, default": lambda fn, xs: client.gather(client.map(fn, list(xs), pure=False))
            },
            queues={"Dask": lambda fn, xs: client.map(fn, list(xs), pure=False)},
        )


@contextmanager
def ray() -> Iterator[Peer]:
    import ray
    from ray.util.multiprocessing import Pool

    @ray.remote
    class Worker:
        def call(self, fn: Function, x: Any) -> Any:
            return fn(x)

    remote = functools.cache(ray.remote)
    actors: list[Any] = []
    pools: list[Any] = []

    def call_actor(fn: Function, x: Any) -> Any:
        if not actors:
            actors.append(Worker.options(num_cpus=0).remote())
        return ray.get(actors[0].call.remote(fn, x))

    def in_pool(fn: Function, xs: Any, size: int) -> Iterable[Any]:
        if not pools:
            pools.append(Pool(WORKERS, ray_remote_args={"num_cpus": 0}))
        return pools[0].map(fn, xs, size)

    def queue(fn: Function, xs: Any) -> list[Any]:
        return [remote(fn).remote(x) for x in xs]

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=WORKERS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=1 << 30,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        try:
            yield Peer(
                calls={
                    "Ray, task": lambda fn, x: ray.get(remote(fn).remote(x)),
                    "Ray, actor": call_actor,
                },
                maps={"Ray, default": lambda fn, xs: ray.get(queue(fn, xs))},
                best={"Ray's Pool.map, best: chunksize={:,}": in_pool},
                queues={"Ray": queue},
            )
        finally:
            for one in pools:
                one.terminate()
            ray.shutdown()


# Those that fork come first, before others have started threads.
PEERS: dict[str, Callable[[], AbstractContextManager[Peer]]] = {
    "multiprocessing": pool,
    "executor": executor,
    "joblib": joblib,
    "dask": dask,
    "ray": ray,
    "tendril": tendril,
}
PACKAGES = {"tendril": "tendril", "joblib": "joblib", "dask": "distributed", "ray": "ray"}


def missing() -> list[str]:
    """Peers whose package is not installed."""
    return [name for name, package in PACKAGES.items() if not importlib.util.find_spec(package)]


def versions() -> str:
    """The peers' packages with their versions; those of the standard library have Python's."""
    known = (name for name in ("joblib", "distributed", "ray", "numpy") if name not in missing())
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in known)


def prepare() -> None:
    """Set what peers read from the environment when they are imported."""
    os.environ.update(ENVIRONMENT)
