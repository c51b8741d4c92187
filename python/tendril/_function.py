"""The decorator: a function that runs elsewhere, and what it can be asked for."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tendril import _environment, _pickling, _place, _tendril, _units
from tendril._feed import BYTES, LAZY_SPAN, SIZED_SPAN
from tendril._map import ERRORS, Errors, Map, core_error
from tendril._outcome import error_of, value_of
from tendril._session import Session, get_session, nested
from tendril.errors import NotAvailable

if TYPE_CHECKING:
    import datetime

    Duration = float | str | datetime.timedelta


class Cluster(NamedTuple):
    """Where a function's calls run."""

    place: str
    cores: int
    memory_limit_by: str

    def shutdown(self) -> None:
        """End the processes that wait for more calls; the next call starts them again."""
        from tendril._session import close_session

        close_session(self.place)


class Function:
    """A function whose calls run in a runner, here or elsewhere; see `tendril.function`.

    f(x) runs one call and returns its result. f.map(xs) runs many. f.submit(x) gives a Future.
    f.local(x) is the plain function.
    """

    def __init__(self, fn: Callable[..., Any], options: dict[str, Any]) -> None:
        if not callable(fn):
            raise TypeError(f"tendril.function decorates callables, not {type(fn).__name__}")
        self._fn = fn
        self._options = options
        self._cpu = _units.cores(options.get("cpu"), "cpu")
        self._memory = _units.size(options.get("memory"), "memory")
        self._retries = _units.count(options.get("retries") or 0, "retries")
        self._timeout = _units.seconds(options.get("timeout"), "timeout")
        self._prepared: Any = None
        self._announced = False
        for name in ("keepalive", "idle_timeout"):
            _units.seconds(options.get(name), name)
        if options.get("max_cost") is not None:
            raise NotAvailable("max_cost is not available yet")
        functools.update_wrapper(self, fn, updated=())

    @property
    def name(self) -> str:
        """Its name in logs, errors and progress bars."""
        return self._options.get("name") or getattr(self._fn, "__name__", type(self._fn).__name__)

    @property
    def local(self) -> Callable[..., Any]:
        """The function itself: f.local(x) runs here and now, in this process."""
        return self._fn

    @property
    def cluster(self) -> Cluster:
        """Where its calls run."""
        place = self._where()
        cores, _, limits = get_session(place).client.info()
        return Cluster(place, cores, limits or "not known yet")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one call and wait for its result."""
        payload = _pickling.dumps_arguments(args, kwargs)
        session, core = self._open(direct=True)
        try:
            core.submit(payload)
            outcome = session.next_outcome(core)
        except _tendril.Error as error:
            raise core_error(error, self.name) from None
        except BaseException:
            core.cancel()
            raise
        if outcome.ok:
            return value_of(outcome)
        raise error_of(outcome, self.name)

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Start one call in the background; returns a concurrent.futures.Future."""
        from tendril._future import Future

        payload = _pickling.dumps_arguments(args, kwargs)
        session, core = self._open(notify=True)
        future = Future(session, core, self.name)
        try:
            core.submit(payload)
            core.end()
        except _tendril.Error as error:
            session.forget_notice(core.id)
            raise core_error(error, self.name) from None
        return future

    def map(
        self,
        *iterables: Iterable[Any],
        errors: Errors = "raise",
        ordered: bool = True,
        retries: int | None = None,
        timeout: Duration | None = None,
    ) -> Map:
        """Run the function over inputs, in parallel; several iterables as with the builtin map.

        errors: what a failed call gives at its turn: "raise", "return" the exception, or "skip".
        ordered: results in the order of the inputs, else as they finish.
        retries, timeout (of one attempt, seconds or text): instead of the function's own.

        Inputs are drawn in a thread, ahead of the results by about 1,024 calls for an iterator (or
        the few batches that keep the runners busy, where calls are quick) and about a million for
        an input with a length, and at most about 256 MiB.
        """
        if not iterables:
            raise TypeError("map needs at least one iterable")
        if errors not in ERRORS:
            raise ValueError(f"errors must be one of {', '.join(ERRORS)}, not {errors!r}")
        lengths = [len(one) if hasattr(one, "__len__") else None for one in iterables]
        length = None if None in lengths else min(lengths)  # type: ignore[type-var]
        spread = len(iterables) > 1
        inputs = zip(*iterables, strict=False) if spread else iter(iterables[0])
        head = _pickling.RUN_OF_SPREAD_INPUTS if spread else _pickling.RUN_OF_INPUTS
        session, core = self._open(
            ordered=ordered,
            pack={
                "head": head,
                "foot": _pickling.RUN_END,
                "length": -1 if length is None else length,
                "ahead_calls": LAZY_SPAN if length is None else SIZED_SPAN,
                "ahead_bytes": BYTES,
            },
            retries=None if retries is None else _units.count(retries, "retries"),
            timeout=_units.seconds(timeout, "timeout"),
        )
        return Map(session, core, self.name, inputs, spread, length, errors)

    def _open(
        self,
        *,
        notify: bool = False,
        direct: bool = False,
        ordered: bool = True,
        retries: int | None = None,
        timeout: float | None = None,
        pack: dict[str, Any] | None = None,
    ) -> tuple[Session, _tendril.Map]:
        """Open a map of this function at its place."""
        retries = self._retries if retries is None else retries
        timeout = self._timeout if timeout is None else timeout
        try:
            place, spec = self._prepare(retries, timeout or 0)
            session = get_session(place)
            if direct:
                return session, session.client.map(spec, direct=True)
            core = session.client.map(spec, ordered=ordered, notify=notify, **(pack or {}))
        except _tendril.Error as error:
            raise core_error(error, self.name) from None
        return session, core

    def _where(self) -> str:
        """The place of its calls; of a call's own, its machine."""
        return _place.LOCAL if nested() else _place.resolve(self._options)

    def _prepare(self, retries: int, timeout: float) -> tuple[str, _tendril.Spec]:
        """Its place, the pickled function and what its runners need, after a look at where it is to
        run; kept as long as nothing that they depend on has changed."""
        now, parts = _environment.moment(), _pickling.parts(self._fn)
        if self._prepared is not None and parts is not None:
            then, then_parts, (path, changed), prepared = self._prepared
            same = then == (now, retries, timeout) and len(parts) == len(then_parts)
            same = same and all(map(operator.is_, parts, then_parts))
            if same and _tendril.changed_ns(path) == changed:
                return prepared
        config = _place.config_state()
        place = self._where()
        away = place != _place.LOCAL
        around = _environment.capture(self._fn, self._options.get("environ"), self._cpu, away)
        common = {
            "argv": around.argv,
            "env": around.env,
            "cwd": around.cwd,
            "memory_bytes": self._memory or 0,
            "cpu_milli": round((self._cpu or 0) * 1000),
            "retries": retries,
            "timeout_ns": round(timeout * 1e9),
        }
        if not self._announced:  # what runners are forked from starts while we pickle
            get_session(place).client.map(_tendril.Spec(key=bytes(32), body=b"", **common))
            self._announced = True
        body, key = _pickling.dumps_function(self._fn)
        spec = _tendril.Spec(key=key, body=body, **common)
        prepared = place, spec
        if parts is None:
            self._prepared = None
        else:
            self._prepared = (now, retries, timeout), parts, config, prepared
        return prepared

    def __get__(self, instance: Any, owner: type | None = None) -> Function:
        """As a method: bound to its instance, which travels with the call."""
        if instance is None:
            return self
        return Function(functools.partial(self._fn, instance), {**self._options, "name": self.name})

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By name where the other side can import it, as with a plain function: the name leads
        to this object there, and not to what is inside. Else whole."""
        name = getattr(self, "__qualname__", "")
        if self.__module__ == "__main__" or _pickling.find(self.__module__, name) is not self:
            return self._whole()
        return name

    def _whole(self) -> tuple[Any, ...]:
        return Function, (self._fn, self._options)

    def __repr__(self) -> str:
        return f"<tendril.Function {self.name}>"


_pickling.WHOLE[Function] = Function._whole


def _check_options(options: dict[str, Any]) -> None:
    for name in ("region", "vm_type", "place", "name"):
        value = options[name]
        allowed = (str, list, tuple) if name == "vm_type" else (str,)
        if value is not None and not isinstance(value, allowed):
            raise TypeError(f"{name} must be text, not {type(value).__name__}")
    n_workers = options["n_workers"]
    if isinstance(n_workers, (list, tuple)):
        least_most = [_units.count(bound, "n_workers") for bound in n_workers]
        if len(least_most) != 2 or least_most[0] > least_most[1]:
            raise ValueError(f"n_workers must be [min, max], not {n_workers!r}")
    elif n_workers is not None:
        _units.count(n_workers, "n_workers")
    environ = options["environ"]
    if environ is not None:
        if not isinstance(environ, Mapping):
            raise TypeError(f"environ must map names to text, not be a {type(environ).__name__}")
        for key, value in environ.items():
            if not isinstance(key, str) or not isinstance(value, str) or "=" in key or not key:
                raise TypeError(f"environ maps names to text, not {key!r} to {value!r}")
            if "\0" in key + value:
                raise ValueError(f"environ[{key!r}] contains a zero byte")


def function(
    fn: Callable[..., Any] | None = None,
    *,
    region: str | None = None,
    vm_type: str | list[str] | None = None,
    cpu: float | list[int] | None = None,
    memory: float | str | list[str] | None = None,
    gpu: bool | None = None,
    arm: bool | None = None,
    disk_size: int | str | None = None,
    spot_policy: str | None = None,
    n_workers: int | list[int] | None = None,
    threads_per_worker: int | None = None,
    keepalive: Duration | None = None,
    idle_timeout: Duration | None = None,
    environ: Mapping[str, str] | None = None,
    package_sync_ignore: list[str] | None = None,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
    local: bool = False,
    place: str | None = None,
    retries: int = 0,
    timeout: Duration | None = None,
    max_cost: float | None = None,
) -> Any:
    """Decorate a function so that its calls run elsewhere: on machines in the cloud, on a
    cluster, or in processes on this machine.

    Where: local=True means this machine; else the environment variable TENDRIL_PLACE, else
    place=, else the configuration file, else this machine.

    At every place:
        cpu: cores that one call may use. memory: bytes, or text like "4 GiB", that one call with
            its child processes may use; beyond it OutOfMemory is raised.
        environ: environment variables to add.
        retries: further attempts after a failed one, with growing pauses. timeout: of one
            attempt, in seconds or text like "10 minutes"; beyond it the call is stopped.
        name: for logs and progress bars.
    For machines on demand (no effect at place "local"): region, vm_type, gpu, arm, disk_size,
        spot_policy, n_workers=[min, max], threads_per_worker, keepalive, idle_timeout,
        package_sync_ignore, tags. They are named as in Coiled Functions.

    May be used with or without parentheses. Raises TypeError or ValueError for an option that
    makes no sense, at once.
    """
    options = dict(locals())
    del options["fn"]
    _check_options(options)
    # What is not set is left out, so that a function and its pickle stay small. A zero was set.
    options = {
        key: value for key, value in options.items() if value is not None and value is not False
    }
    if fn is None:
        return lambda decorated: Function(decorated, options)
    return Function(fn, options)
