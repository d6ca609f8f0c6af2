"""A job: something to do once, and the handle of it.

`trio.lowlevel` is used to have a checkpoint where a job is awaited that has ended.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import math
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterable, Sequence
from contextvars import Context
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, TypeVarTuple, Unpack

import attrs
import trio

from ..backoff import Backoff
from ..errors import NotReady
from ..events import Event
from ..graph import Node
from ..member import require_seconds

__all__ = [
    "Job",
    "JobCancelled",
    "JobEnded",
    "JobError",
    "JobEvent",
    "JobFailed",
    "JobNotReady",
    "JobSkipped",
    "JobSpec",
    "JobStarted",
    "JobTimeout",
    "Status",
    "When",
    "all_done",
    "all_ok",
    "job",
    "ready_if",
]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Status(enum.Enum):
    """How a job ended; UNKNOWN as long as it has not, and for good if it was cancelled or never reached."""

    SUCCESS = "success"
    NOT_READY = "not ready"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNKNOWN = "unknown"


SUCCESS: Final = Status.SUCCESS
UNKNOWN: Final = Status.UNKNOWN

MOST_SHOWN: Final = 300
"""Characters of an error in the text of another."""

When: TypeAlias = "Callable[[Sequence[Job[Any]]], bool]"
"""Whether a job runs, by the jobs that it is after, all of which have ended."""


def all_ok(after: Sequence[Job[Any]]) -> bool:
    """Whether all have succeeded: when a job runs unless it says otherwise. Others are skipped as soon as one has not."""
    return all(each.status is Status.SUCCESS for each in after)


def all_done(after: Sequence[Job[Any]]) -> bool:
    """True: for jobs that clean up, which run when all they are after have ended, in whatever way."""
    return True


def ready_if(ready: object, why: str = "") -> None:
    """Raise `NotReady(why)` unless `ready`: for a body that finds out whether what it asked about is there."""
    if not ready:
        raise NotReady(why)


class Host(Protocol):
    """What a job needs of the crew that works on it."""

    async def wait_for(self, job: Job[Any], /, *, begun: bool = False) -> None:
        """Return when the job has ended, or only begun."""
        ...

    def cancel(self, job: Job[Any], /) -> None:
        """Cancel the job, wherever it is."""
        ...

    def waiting_for(self, job: Job[Any], /) -> list[Job[Any]]:
        """The jobs that cannot go on before the job has ended."""
        ...


class More:
    """What few jobs need: who waits for them, and what they were given beside a function."""

    __slots__ = (
        "after",
        "awaited_by",
        "began",
        "begun",
        "covers",
        "ended",
        "inserted_by",
        "key",
        "retry",
        "stopped",
        "timeout",
        "tried_before",
        "when",
    )

    def __init__(self) -> None:
        self.after: tuple[Job[Any], ...] = ()
        self.awaited_by: dict[trio.lowlevel.Task, Sequence[Job[Any]]] = {}
        self.begun: trio.Event | None = None
        self.inserted_by: dict[trio.lowlevel.Task, Sequence[Job[Any]]] = {}
        self.ended: trio.Event | None = None
        self.covers: list[Job[Any]] = []
        """Jobs of other calls with the same key that end with this one, and as it does."""
        self.began: float | None = None
        self.tried_before: int = 0
        """When the tries began that count for `retry`, and how many there had been for calls before the freshest."""
        self.key: Hashable | None = None
        self.retry: Backoff | None = None
        self.stopped: bool = False
        self.timeout: float = math.inf
        self.when: When | None = None

    def tell_end(self) -> None:
        """Wake those that wait for the job."""
        for event in (self.begun, self.ended):
            if event is not None:
                event.set()


class Job(Node, Generic[T_co]):
    """Something that is done once, or was; await it any number of times, also after its end, for its value.

    `status` is UNKNOWN until it has `ended`. `started` and `ended` are times of trio's clock, None if it never did; `attempts`
    counts how often its body was begun. `value` is what it returned, `error` what its last try raised, `blame` the job because
    of which it was skipped. Attributes can be read from any thread.
    """

    __slots__ = (
        "_args",
        "_context",
        "_fn",
        "_host",
        "_more",
        "_name",
        "_running",
        "attempts",
        "blame",
        "ended",
        "error",
        "started",
        "status",
        "value",
    )

    def __init__(
        self, host: Host, name: str | int, fn: Callable[..., Awaitable[T_co]], args: tuple[Any, ...], context: Context
    ) -> None:
        self._left = 0
        self._unlocks = ()
        self._args = args
        self._context = context
        self._fn = fn
        self._host = host
        self._more: More | None = None
        self._name = name
        self._running: object = None
        self.attempts: int = 0
        self.blame: Job[Any] | None = None
        self.ended: float | None = None
        self.error: BaseException | None = None
        self.started: float | None = None
        self.status: Status = UNKNOWN
        self.value: T_co | None = None

    def __repr__(self) -> str:
        return f"<Job {self.name!r} {self.state}>"

    @property
    def name(self) -> str:
        """Its name; where none was given that of the function, and a number."""
        return self._name if isinstance(self._name, str) else f"{title(self._fn)}#{self._name}"

    @property
    def ready(self) -> bool:
        """Whether it has succeeded, which is what those after it wait for."""
        return self.status is SUCCESS

    @property
    def state(self) -> str:
        """The status in a word, and before the end where it is: waiting, running, or trying again."""
        if self.ended is not None:
            return self.status.value if self.status is not Status.UNKNOWN or self.started is None else "cancelled"
        if self._running is not None:
            return "running"
        return "waiting" if self.started is None else "trying again"

    def cancel(self) -> None:
        """Cancel it: it ends UNKNOWN, and those after it are skipped. Returns at once; what has ended stays as it is."""
        self._host.cancel(self)

    def __await__(self) -> Generator[Any, Any, T_co]:
        """Wait for the end and return the value; a job that waits for another leaves its slot to others meanwhile.

        A cancellation of the wait does nothing to the job. Raises: JobFailed from its error, JobNotReady (a NotReady), JobSkipped
        or JobCancelled; CycleError if the job waits, over others or not, for the one that would wait here.
        """
        return self._result().__await__()

    async def _result(self) -> T_co:
        if self.ended is None:
            await self._host.wait_for(self)
        else:
            await trio.lowlevel.checkpoint()
        if self.status is SUCCESS:
            return self.value  # type: ignore[return-value]  # None only where that is what it returned
        raise not_ok(self)

    def _extra(self) -> More:
        if self._more is None:
            self._more = More()
        return self._more


class JobError(Exception):
    """A job that was waited for has no value; `job` is it."""

    def __init__(self, job: Job[Any]) -> None:
        self.job: Job[Any] = job
        super().__init__(f"job {job.name!r} {self._what(job)}")

    def _what(self, job: Job[Any]) -> str:
        raise NotImplementedError


class JobFailed(JobError):  # noqa: N818 (what happened, like its siblings)
    """The job raised, and its `__cause__` is what."""

    def _what(self, job: Job[Any]) -> str:
        root = job
        while isinstance(root.error, JobFailed):
            root = root.error.job
        return f"failed{f' because of {root.name!r}' if root is not job else ''}: {shown(root.error)}"


class JobNotReady(JobError, NotReady):  # noqa: N818 (what happened, like its siblings)
    """The job said that it is not ready, and was not to be tried again."""

    def _what(self, job: Job[Any]) -> str:
        return f"is not ready: {job.error}" if str(job.error) else "is not ready"


class JobSkipped(JobError):  # noqa: N818 (what happened, like its siblings)
    """The job never ran, because of one that it is after, transitively: `job.blame`."""

    def _what(self, job: Job[Any]) -> str:
        if job.blame is None:
            return "was skipped: its `when` said no"
        return f"was skipped because of {job.blame.name!r}, which {_ended(job.blame)}"


class JobCancelled(JobError):  # noqa: N818 (what happened, like its siblings)
    """The job was cancelled, or its run was over before it began."""

    def _what(self, job: Job[Any]) -> str:
        return "was not begun before its run was over" if job.started is None else "was cancelled"


class JobTimeout(Exception):  # noqa: N818 (what happened, like its siblings)
    """A job took longer than its `timeout`, and was cancelled."""


OUTCOMES: Final[dict[Status, type[JobError]]] = {
    Status.FAILED: JobFailed,
    Status.NOT_READY: JobNotReady,
    Status.SKIPPED: JobSkipped,
    Status.UNKNOWN: JobCancelled,
}
"""What is raised where a job without a value is waited for."""


def not_ok(job: Job[Any]) -> JobError:
    """What to raise for a job that has no value."""
    error = OUTCOMES[job.status](job)
    error.__cause__ = job.error
    return error


def _ended(job: Job[Any]) -> str:
    if job.status is Status.UNKNOWN:
        return "was cancelled"
    return f"failed: {shown(job.error)}" if job.status is Status.FAILED else f"is {job.status.value}"


def shown(error: object) -> str:
    """What stands for an error in the text of another: at most 300 characters, as such texts are in texts again."""
    try:
        text = repr(error)
    except Exception:
        return f"{type(error).__qualname__} (which cannot be shown)"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def title(fn: Callable[..., object]) -> str:
    """What a function is called where no name was given."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    with contextlib.suppress(Exception):  # whatever a user's property does, it is only a name
        return str(getattr(fn, "name", None) or getattr(fn, "__qualname__", None) or type(fn).__qualname__)
    return type(fn).__qualname__


@attrs.frozen
class JobEvent(Event):
    """A fact about a `job`, whose name is the `path`."""

    job: Job[Any]


@attrs.frozen
class JobStarted(JobEvent):
    """The body of a job was begun, for the first time or again."""


@attrs.frozen
class JobEnded(JobEvent):
    """A job has ended: `job.status` says how."""


@attrs.frozen(eq=False)
class JobSpec(Generic[T_co]):
    """What `job(...)` returns: a job in a graph that can be run any number of times."""

    fn: Callable[..., Awaitable[T_co]]
    args: tuple[Any, ...] = ()
    after: tuple[str, ...] = ()
    retry: Backoff | None = None
    timeout: float = math.inf
    when: When = all_ok


def job(
    fn: Callable[[Unpack[Ts]], Awaitable[T]],
    *args: *Ts,
    after: str | Iterable[str] = (),
    retry: Backoff | None = None,
    timeout: float = math.inf,
    when: When = all_ok,
) -> JobSpec[T]:
    """A node of a graph, beside plain functions.

        run_jobs({"fetch": fetch, "build": job(build, "linux", after="fetch")})

    `after` names the jobs that it is after. `retry` tries again what has raised; `timeout` is the seconds that each try may take.
    `when` is whether to run it, by the jobs that it is after. Raises: TypeError or ValueError for what is none of these.
    """
    names = (after,) if isinstance(after, str) else tuple(dict.fromkeys(after))
    require_job(fn, title(fn) if callable(fn) else repr(fn), retry, timeout, when)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"job {title(fn)!r}: after={after!r} has something that is not the name of a job")
    return JobSpec(fn, args, names, retry, timeout, when)


def require_job(fn: object, name: str, retry: object, timeout: float, when: object) -> None:
    """Raises: TypeError or ValueError that names the job and the fix."""
    if not callable(fn):
        fix = "give the function itself, without the call" if isinstance(fn, Awaitable) else "give an async function"
        raise TypeError(f"job {name!r}: {fn!r} is not callable: {fix}")
    if retry is not None and not isinstance(retry, Backoff):
        raise TypeError(f"job {name!r}: retry={retry!r} is no Backoff: retry=Backoff(attempts=3) is how it is meant")
    if timeout != math.inf:
        require_seconds(timeout, f"job {name!r}: timeout")
    if not callable(when):
        raise TypeError(f"job {name!r}: when={when!r} is not callable: use all_ok, all_done or a function of the jobs it is after")
