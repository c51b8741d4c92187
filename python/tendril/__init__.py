"""Tendril runs the Python a person already has on as many machines as the work wants.

    import tendril

    @tendril.function(region="us-east-1", vm_type="m6i.xlarge")
    def process(filename): ...

    process(filename)                    # one call
    for out in process.map(filenames):   # many, in parallel, results in order as they come
        print(out)

With TENDRIL_PLACE=local the same code runs in processes on this machine.
"""

from __future__ import annotations

from builtins import print

from tendril._function import Cluster, Function, function
from tendril._map import Failure, Map, Stats
from tendril._tendril import __version__
from tendril.errors import (
    CallerLost,
    CallError,
    Cancelled,
    ClosedError,
    ConfigurationError,
    ForkedError,
    MachineLost,
    NotAvailable,
    NotStarted,
    OutOfMemory,
    PicklingError,
    RemoteError,
    RemoteTraceback,
    RunnerCrashed,
    SpotReclaimed,
    TendrilError,
    TimedOut,
)

__all__ = [
    "CallError",
    "CallerLost",
    "Cancelled",
    "ClosedError",
    "Cluster",
    "ConfigurationError",
    "Failure",
    "ForkedError",
    "Function",
    "MachineLost",
    "Map",
    "NotAvailable",
    "NotStarted",
    "OutOfMemory",
    "PicklingError",
    "RemoteError",
    "RemoteTraceback",
    "RunnerCrashed",
    "SpotReclaimed",
    "Stats",
    "TendrilError",
    "TimedOut",
    "__version__",
    "attach",
    "function",
    "print",
]


def attach(map_id: str) -> Map:
    """Read the results of a map that another process started, at a place that keeps maps."""
    raise NotAvailable(
        f"attach({map_id!r}): maps on this machine end with their process; "
        "clusters are not available yet"
    )
