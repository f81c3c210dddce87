"""A scorer that can be replaced while the feed runs: every call has a deadline, every batch a check.

A back end beside the engine (hardware, its simulation, a graphics card) may stall, raise, lose its process, or answer
wrongly. `Failover` hands each batch to the scorer in use, in a thread of the scorer's own, and releases the answer only
when it came in time and its sampled rows equal Weights.compute. Otherwise the next scorer of backend.FAILOVER takes the
same batch, so that no row is lost or doubled; whatever has memory (smoothing, alarms) sees released batches only.

What it cannot do: interrupt a thread. A call that never returns keeps its thread, its scorer and one batch of codes, at
most once for each back end, because a back end is not taken back before that call has ended. A scorer that holds the
interpreter's lock while it hangs, or that ends the process, takes the program with it: such a one belongs into a
process of its own.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microrisk.errors import BackendUnavailable, UsageError
from microrisk.score import backend
from microrisk.spec.features import ALL_MASK
from microrisk.spec.records import N_HEADS
from microrisk.weights import Weights

CHECK_EVERY = 61
"""One row in so many is computed again. A prime, so that the sample moves over all lanes of a parallel core."""
DEADLINE_S = 10.0
"""Seconds in which a batch must be answered; a device does it in milliseconds, a loaded machine may pause."""
SIMULATION_S = 1800.0
"""The same for the simulated hardware, which does some hundred rows a second."""
LINE_S = 120.0
"""The same for a board on a serial line, which carries some 3,000 rows a second and tells of silence itself."""
START_S = 900.0
"""Seconds for the first scorer to open and load, and for rtl when restored: a simulation is compiled first."""
TAKEOVER_S = 60.0
"""Seconds for a successor, which has been made ready beforehand, or another scorer to be restored, to be ready."""
STANDBY_S = 10.0
"""Seconds that start and end wait for a successor that is still being made ready; the run goes on without it."""
IDLE_S = 2.0
"""Seconds that `restore` gives the failed scorer to close."""
RESTORE_ROWS = 1024
"""Random rows of the check before a back end is restored."""


@dataclass(frozen=True)
class Switch:
    """One replacement of a scorer.

    Attributes
    ----------
    source, target : names of the scorer that failed and of its successor
    reason : what was wrong, with numbers
    at_row : rows released before, so the first row that the successor scored
    switch_ms : from the moment the failure was known until the same batch was out of the successor and checked (or the
        successor had failed too); the deadline of a stalled call passes before that
    """

    source: str
    target: str
    reason: str
    at_row: int
    switch_ms: float

    def to_json(self) -> dict[str, Any]:
        """Plain types: from, to, reason, at_row, switch_ms."""
        plain = asdict(self)
        return {"from": plain.pop("source"), "to": plain.pop("target"), **plain, "switch_ms": round(self.switch_ms, 3)}

    def notice(self) -> str:
        """The same as a sentence."""
        return (
            f"back end {self.source} failed ({self.reason}) at row {self.at_row}; "
            f"{self.target} took over in {self.switch_ms:.1f} ms, no event lost"
        )


def check_watch(check_every: int | None, deadline: float | None) -> None:
    """UsageError for a `check_every` or `deadline` of Failover that cannot be meant; None is its default."""
    if (check_every is not None and check_every < 1) or (
        deadline is not None and not 0 < deadline < threading.TIMEOUT_MAX
    ):
        raise UsageError(
            f"check_every {check_every}, deadline {deadline} s: whole rows from 1 and seconds above 0 are needed"
        )


class Failover:
    """A scorer of batches that stays in service while back ends fail. Its methods may be called from any thread.

    Parameters
    ----------
    scorer : the one to begin with, open and not loaded; from here on it is used in a thread of its own only
    weights, mask : the model and the features of the feed
    check_every : one row in so many, and at least one of each batch, is compared with Weights.compute; 1 = every row
    deadline : seconds for a batch, above 0; None = DEADLINE_S, SIMULATION_S for rtl, LINE_S for fpga

    Raises
    ------
    BackendUnavailable : the scorer is not ready after START_S
    UsageError : a check_every or deadline that cannot be meant
    WeightFileError, SpecMismatch : the scorer does not take the model
    """

    def __init__(
        self,
        scorer: backend.Scorer,
        weights: Weights,
        mask: int = ALL_MASK,
        *,
        check_every: int | None = None,
        deadline: float | None = None,
    ) -> None:
        check_watch(check_every, deadline)
        self._every = CHECK_EVERY if check_every is None else check_every
        self._deadline = deadline
        self._weights, self._mask = weights, mask
        self._lock = threading.RLock()
        self._failed: dict[str, _Failed] = {}
        self._open: tuple[Switch, float] | None = None
        self.rows = 0
        self.switches: list[Switch] = []
        self.notices: list[str] = []
        self._guarded = self._started(scorer)
        self._prepare()
        self._standby.settle(STANDBY_S)  # so that the first switch does not wait for an import

    @property
    def name(self) -> str:
        """The back end in use."""
        return self._guarded.name

    @property
    def failed(self) -> dict[str, str]:
        """Back ends out of service, with the reason."""
        return {name: f.reason for name, f in self._failed.items()}

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, N_FEATURES] -> int32[n, N_HEADS], checked; BackendUnavailable when no back end is left."""
        with self._lock:
            while True:
                try:
                    heads = self._attempt(codes)
                except _Failure as failure:
                    self._settle()
                    self._replace(str(failure), codes)
                else:
                    self._settle()
                    self.rows += len(codes)
                    return heads

    def restore(self, name: str) -> str | None:
        """Put a failed back end back into service, if it scores right again.

        It is opened anew and scores the batch it failed on, extremes and RESTORE_ROWS random rows; all must equal
        Weights.compute. It is then in use where it comes before the present one in FAILOVER (or has no place there),
        else it may take over again. Blocks for the time of opening (TAKEOVER_S, rtl START_S) and a deadline at most;
        called from a thread beside the feed's, it does not hold up the feed.

        Returns
        -------
        str or None : why it stays out, None when it is back
        """
        earlier = self._failed.get(name)
        if earlier is not None:
            earlier.guard.idle(IDLE_S)  # it may be closing; waited for before the lock, which the feed needs
        with self._lock:
            if name not in self._failed:
                return f"back end {name!r} has not failed"
            if not self._failed[name].guard.idle(0):
                return f"back end {name!r} still hangs in an earlier call"
            guard = self._guard(name, lambda: backend.open_scorer(name))
            known = self._failed[name] = replace(self._failed[name], guard=guard)
        try:
            self._examine(guard, known.codes)
        except _Failure as failure:
            with self._lock:
                self._failed[name] = replace(known, reason=str(failure))
            guard.close()
            return str(failure)
        with self._lock:
            del self._failed[name]
            self._return(guard)
        return None

    def close(self) -> None:
        """Let scorers and threads go; waits a little for a successor that is still importing its libraries.

        A thread that is in the middle of an import when the interpreter ends may abort the process.
        """
        with self._lock:
            self._standby.settle(STANDBY_S)
            for guard in (self._standby, self._guarded):
                guard.close()

    def _guard(self, name: str, make: Callable[[], backend.Scorer]) -> _Guard:
        return _Guard(name, make, self._weights, self._mask)

    def _started(self, scorer: backend.Scorer) -> _Guard:
        """The first scorer, loaded; its errors are the caller's, because nobody has relied on it yet."""
        guard = self._guard(scorer.name, lambda: scorer)
        try:
            guard.ready(START_S)
        except _Stall as stall:
            raise BackendUnavailable(f"back end {guard.name!r} cannot run here: {stall}") from None
        return guard

    def _prepare(self) -> None:
        """Make the successor ready now, in its own thread: opening may import large libraries."""
        below, failed = self._guarded.name, tuple(self._failed)
        self._standby = self._guard(_first_below(below, failed), lambda: _successor(below, failed))

    def _attempt(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        try:
            self._guarded.ready(0)
            heads = self._guarded.score(codes, self._seconds(self._guarded.name))
        except Exception as error:  # whatever a driver may throw
            raise _Failure(_text(error)) from error
        self._compare(codes, heads, sample(self.rows, len(codes), self._every), self.rows)
        return heads

    def _seconds(self, name: str) -> float:
        if self._deadline is not None:
            return self._deadline
        return {"rtl": SIMULATION_S, "fpga": LINE_S}.get(name, DEADLINE_S)

    def _compare(self, codes: NDArray[np.int8], heads: NDArray[np.int32], rows: NDArray[np.int64], first: int) -> None:
        """`rows` of a batch against the reference; `first` is the number of the batch's row 0 in the message."""
        expected = self._weights.compute(codes[rows], self._mask)
        bad = np.flatnonzero((heads[rows] != expected).any(axis=1))
        if len(bad):
            one = int(bad[0])
            raise _Failure(
                f"row {first + int(rows[one])}: heads {heads[rows[one]].tolist()}, reference "
                f"{expected[one].tolist()}; {len(bad)} of {len(rows)} rows checked differ"
            )

    def _replace(self, reason: str, codes: NDArray[np.int8]) -> None:
        """The successor becomes the scorer in use; whether it is ready shows at its first call."""
        since, failed, successor = time.perf_counter(), self._guarded, self._standby
        self._failed[failed.name] = _Failed(reason, failed, codes.copy())
        failed.close()
        successor.settle(TAKEOVER_S)  # its name is known from here on
        if successor.none_left:
            causes = "; ".join(f"{n}: {f.reason}" for n, f in self._failed.items())
            raise BackendUnavailable(f"no back end is left ({causes})")
        self._guarded = successor
        self._open = Switch(failed.name, successor.name, reason, self.rows, 0.0), since
        self._prepare()

    def _settle(self) -> None:
        """Close the measurement of a switch that is under way."""
        if self._open is not None:
            switch, since = self._open
            switch = replace(switch, switch_ms=(time.perf_counter() - since) * 1e3)
            self.switches.append(switch)
            self.notices.append(switch.notice())
            self._open = None

    def _examine(self, guard: _Guard, failed_on: NDArray[np.int8]) -> None:
        """Every row of a sample, the batch of the failure among it."""
        from microrisk.model.synthetic import extreme_codes, random_codes

        codes = np.concatenate([failed_on, extreme_codes(), random_codes(RESTORE_ROWS, self.rows)])
        try:
            guard.ready(START_S if guard.name == "rtl" else TAKEOVER_S)
            heads = guard.score(codes, self._seconds(guard.name))
        except Exception as error:  # whatever a driver may throw
            raise _Failure(_text(error)) from error
        self._compare(codes, heads, np.arange(len(codes)), 0)

    def _return(self, guard: _Guard) -> None:
        """Use a scorer that passed, or keep it as a possible successor."""
        present = self._guarded
        self._standby.close()
        if _rank(guard.name) < _rank(present.name):
            self._guarded = guard
            present.close()
        else:
            guard.close()
        self.notices.append(f"back end {guard.name} is restored at row {self.rows}; {self.name} is in use")
        self._prepare()


def sample(first: int, n: int, every: int) -> NDArray[np.int64]:
    """Rows 0..n-1 of a batch to be checked: those whose number in the run, `first` + row, is a multiple of `every`.

    A batch that has none gives one row, which moves with `first`; an empty batch gives none.
    """
    rows = np.arange(-first % every, n, every, dtype=np.int64)
    return rows if len(rows) or n == 0 else np.array([first % n], np.int64)


class _Failure(Exception):
    """The scorer in use must be replaced; the text says why."""


class _Stall(Exception):
    """No answer in time."""


@dataclass(frozen=True)
class _Failed:
    """A scorer out of service: why, its guard (whose thread may still hang), and the batch it failed on."""

    reason: str
    guard: _Guard
    codes: NDArray[np.int8]


@dataclass
class _Call:
    """A call on its way through a thread. After a stall nobody looks at it again: a late answer dies with it."""

    work: Callable[[], Any]
    done: threading.Event = field(default_factory=threading.Event)
    answer: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        """In the thread of the scorer."""
        work, self.work = self.work, _nothing  # an answered call keeps no batch alive
        try:
            self.answer = work()
        except BaseException as error:  # the thread must not die silently, whatever was raised
            self.error = error
        self.done.set()


def _nothing() -> None:
    """Work that was done."""


def _serve(calls: SimpleQueue[_Call | None]) -> None:
    """One thread: calls in order until None."""
    while (call := calls.get()) is not None:
        call.run()
        del call  # an idle thread keeps nothing alive


class _Guard:
    """A scorer whose every call, from opening on, runs in one daemon thread, so that waiting for it can end.

    `name` is exact once the scorer is open.
    """

    def __init__(self, name: str, make: Callable[[], backend.Scorer], weights: Weights, mask: int) -> None:
        self.name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._scorer: backend.Scorer | None = None
        self._waited = 0.0
        self._opened = self._last = self._post(lambda: self._prepare(make, weights, mask))
        threading.Thread(target=_serve, args=(self._calls,), name=f"scorer {name}", daemon=True).start()
        self._end = weakref.finalize(self, self._calls.put, None)

    @property
    def none_left(self) -> bool:
        """Whether the search for a scorer to open ended without one."""
        return self._scorer is None and isinstance(self._opened.error, BackendUnavailable)

    def settle(self, seconds: float) -> bool:
        """Wait until it is open and loaded or has failed; False when neither in time."""
        self._waited = max(self._waited, seconds)
        return self._opened.done.wait(seconds)

    def ready(self, seconds: float) -> None:
        """Wait until it is open and loaded; the error that prevented it, or _Stall."""
        self.settle(seconds)
        self._answer(self._opened, 0, f"not ready after {self._waited:g} s")

    def score(self, codes: NDArray[np.int8], seconds: float) -> NDArray[np.int32]:
        """An answer of the right form, and a copy of it: a driver may use its buffer again."""
        seen = codes.view()
        seen.flags.writeable = False
        if not self._end.alive:
            raise RuntimeError("the scorer is closed")
        call = self._post(lambda: self._scored(seen))
        heads = self._answer(call, seconds, f"no answer to {len(codes)} rows in {seconds:g} s")
        shape = (len(codes), N_HEADS)
        if not isinstance(heads, np.ndarray) or heads.shape != shape or heads.dtype != np.int32:
            form = f"{heads.dtype}{list(heads.shape)}" if isinstance(heads, np.ndarray) else type(heads).__name__
            raise _Failure(f"answer {form} to {len(codes)} rows, int32{list(shape)} is due")
        return heads.copy()

    def idle(self, seconds: float) -> bool:
        """Wait until every call has returned, closing included; False when one has not in time."""
        return self._last.done.wait(seconds)

    def close(self) -> None:
        """End the thread once it has nothing more to do, closing the scorer where it can be closed."""
        if self._end.alive:
            self._last = self._post(self._shut)
            self._end()

    def _post(self, work: Callable[[], Any]) -> _Call:
        self._last = call = _Call(work)
        self._calls.put(call)
        return call

    def _answer(self, call: _Call, seconds: float, late: str) -> Any:
        if not call.done.wait(seconds):
            raise _Stall(late)
        if call.error is not None:
            raise call.error if isinstance(call.error, Exception) else RuntimeError(_text(call.error))
        answer, call.answer = call.answer, None
        return answer

    def _prepare(self, make: Callable[[], backend.Scorer], weights: Weights, mask: int) -> None:
        self._scorer = make()
        self.name = self._scorer.name
        self._scorer.load(weights, mask)

    def _scored(self, codes: NDArray[np.int8]) -> Any:
        if self._scorer is None:
            raise RuntimeError("the scorer is not open")
        return self._scorer.score(codes)

    def _shut(self) -> None:
        scorer, self._scorer = self._scorer, None
        close = getattr(scorer, "close", None)
        if close is not None:
            close()


def _successor(name: str, failed: tuple[str, ...]) -> backend.Scorer:
    """The next of FAILOVER that runs here and has not failed. A simulation is too slow to stand in for hardware."""
    while True:
        scorer = backend.failover("rtl" if name == "fpga" else name)
        if scorer.name not in failed:
            return scorer
        name = scorer.name


def _first_below(name: str, failed: tuple[str, ...]) -> str:
    """The first that `_successor` looks at: its name until it is open, so that one that hangs there is passed over."""
    below = backend.FAILOVER[_rank(name) + 1 :] if name in backend.FAILOVER else ("cpu", "reference")
    return next((n for n in below if n != "rtl" and n not in failed), "none")


def _rank(name: str) -> int:
    """Place in FAILOVER; a scorer of other origin was asked for by name and comes first."""
    return backend.FAILOVER.index(name) if name in backend.FAILOVER else -1


def _text(error: BaseException) -> str:
    """A driver's error may be without words."""
    return str(error) or type(error).__name__
