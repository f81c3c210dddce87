"""Failover alone: what is checked, what starts and ends, and every way in which a successor can fail too."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from microrisk.errors import BackendUnavailable, UsageError, WeightFileError
from microrisk.model.synthetic import market_like_codes, random_weights
from microrisk.score import backend, failover
from microrisk.score.failover import Failover, sample
from microrisk.score.reference_scorer import ReferenceScorer
from microrisk.spec.features import ALL_MASK
from microrisk.weights import Weights

CODES = market_like_codes(500, 3)
MASK = ALL_MASK & ~0b1011


class Good(ReferenceScorer):
    """Right, under any name."""

    def __init__(self, name: str = "fpga") -> None:
        super().__init__()
        self.name, self.closed = name, False

    def close(self) -> None:
        self.closed = True


class Raises(Good):
    """Raises what it is given."""

    def __init__(self, name: str = "fpga", error: BaseException | None = None) -> None:
        super().__init__(name)
        self.error = error or OSError("no such device")

    def score(self, codes: Any) -> Any:
        raise self.error


class Hangs(Good):
    """Hangs in `method` until `end`."""

    def __init__(self, name: str = "fpga", method: str = "score") -> None:
        super().__init__(name)
        self.method, self.end = method, threading.Event()

    def _maybe(self, method: str) -> None:
        if self.method == method:
            self.end.wait(30)

    def unavailable(self) -> None:
        self._maybe("unavailable")

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        self._maybe("load")
        super().load(weights, mask)

    def score(self, codes: Any) -> Any:
        self._maybe("score")
        return super().score(codes)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights(5)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the entry points offer: `offered(cuda=make)`."""

    def offer(**makers: Any) -> None:
        monkeypatch.setattr(backend, "_names", lambda: list(makers))
        monkeypatch.setattr(backend, "_find", lambda n: (f"test:{n}", makers.get(n)))

    offer(reference=ReferenceScorer)
    return offer


@pytest.fixture
def hung() -> Iterator[Callable[..., Hangs]]:
    """Hanging scorers that the test's end releases."""
    made: list[Hangs] = []

    def make(*words: str) -> Hangs:
        made.append(Hangs(*words))
        return made[-1]

    yield make
    for scorer in made:
        scorer.end.set()


def right(weights: Weights, service: Failover, mask: int = ALL_MASK) -> bool:
    return np.array_equal(service.score(CODES), weights.compute(CODES, mask))


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("scorer ")]


def ended() -> bool:
    """Whether all threads of scorers end."""
    gc.collect()  # services of other tests
    for thread in threading.enumerate():
        if thread.name.startswith("scorer "):
            thread.join(10)
    return not threads()


@pytest.mark.parametrize("every", [1, 2, 7, 61, 1000])
def test_sample_is_one_grid_over_the_run_and_at_least_a_row_of_each_batch(every: int) -> None:
    first, seen = 0, []
    for n in [1, 3, 500, 0, 61, 7, 1000, 2]:
        rows = sample(first, n, every)
        assert (len(rows) > 0) == (n > 0)
        assert ((rows >= 0) & (rows < n)).all()
        seen += (rows + first).tolist()
        first += n
    assert set(range(0, first, every)) <= set(seen)
    assert len(seen) == len(set(seen)) <= -(-first // every) + 8


def test_default_sample_visits_every_lane() -> None:
    """A core of 2..16 lanes is checked in each lane within one batch of 65,536 rows."""
    rows = sample(0, 1 << 16, failover.CHECK_EVERY)
    assert all(len(np.unique(rows % lanes)) == lanes for lanes in range(2, 17))


def test_mask_reaches_the_check(weights: Weights, offered: Callable[..., None]) -> None:
    service = Failover(Good(), weights, MASK, check_every=1)
    assert right(weights, service, MASK)
    assert service.switches == []
    service.close()
    assert ended()


@pytest.mark.parametrize("how", [{"check_every": 0}, {"deadline": 0.0}, {"deadline": float("nan")}, {"deadline": 1e12}])
def test_parameters_that_cannot_be_meant(weights: Weights, how: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="check_every"):
        Failover(Good(), weights, **how)


def test_the_first_scorer_reports_its_own_errors(weights: Weights, offered: Callable[..., None]) -> None:
    class Refuses(Good):
        def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
            raise WeightFileError("layer 3 could overflow")

    with pytest.raises(WeightFileError, match="layer 3"):
        Failover(Refuses(), weights)


def test_a_first_scorer_that_never_gets_ready(
    weights: Weights, hung: Callable[..., Hangs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "START_S", 0.2)
    with pytest.raises(BackendUnavailable, match=r"'fpga' cannot run here: not ready after 0.2 s"):
        Failover(hung("fpga", "load"), weights)


@pytest.mark.parametrize(
    "error", [OSError("gone"), EOFError(), MemoryError("full"), SystemExit(3), KeyboardInterrupt()]
)
def test_whatever_a_driver_raises(weights: Weights, offered: Callable[..., None], error: BaseException) -> None:
    first = Raises("fpga", error)
    service = Failover(first, weights)
    assert right(weights, service)
    (switch,) = service.switches
    assert (switch.source, switch.target, switch.at_row) == ("fpga", "reference", 0)
    assert switch.reason == (str(error) or type(error).__name__)
    assert service.failed == {"fpga": switch.reason}
    service.close()
    assert ended()
    assert first.closed


def test_answers_of_every_wrong_form(weights: Weights, offered: Callable[..., None]) -> None:
    forms: list[Callable[[Any], Any]] = [
        lambda a: a[:-1], lambda a: np.r_[a, a[-1:]], lambda a: a.astype(np.int64), lambda a: a.T, lambda a: None,
        lambda a: a.tolist(), lambda a: a.astype(np.float32),
    ]  # fmt: skip
    for form in forms:

        class Odd(Good):
            def score(self, codes: Any, form: Callable[[Any], Any] = form) -> Any:
                return form(super().score(codes))

        service = Failover(Odd(), weights)
        assert right(weights, service)
        assert "is due" in service.switches[0].reason


def test_an_answer_is_ours_and_codes_are_not_the_drivers(weights: Weights, offered: Callable[..., None]) -> None:
    """A driver that reuses its buffer changes nothing released; one that writes into the codes is replaced."""

    class Reuses(Good):
        buffer = np.zeros((len(CODES), 4), np.int32)

        def score(self, codes: Any) -> Any:
            self.buffer[:] = super().score(codes)
            return self.buffer

    class Writes(Good):
        def score(self, codes: Any) -> Any:
            codes[:] = 0
            return super().score(codes)

    service = Failover(Reuses(), weights)
    heads = service.score(CODES)
    Reuses.buffer[:] = 7
    assert np.array_equal(heads, weights.compute(CODES))
    service = Failover(Writes(), weights)
    assert right(weights, service)
    assert "read-only" in service.switches[0].reason


def test_successors_that_fail_too(weights: Weights, offered: Callable[..., None]) -> None:
    """Cuda does not load the model, the cpu raises in its first call, the reference stays."""

    class NoMemory(Good):
        def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
            raise BackendUnavailable("CUDA out of memory")

    offered(cuda=lambda: NoMemory("cuda"), cpu=lambda: Raises("cpu"), reference=ReferenceScorer)
    service = Failover(Raises(), weights)
    assert right(weights, service)
    assert [(s.source, s.target) for s in service.switches] == [
        ("fpga", "cuda"), ("cuda", "cpu"), ("cpu", "reference"),
    ]  # fmt: skip
    assert "out of memory" in service.switches[1].reason
    assert service.rows == len(CODES)


@pytest.mark.parametrize("method", ["unavailable", "load", "score"])
def test_a_successor_that_hangs(
    weights: Weights,
    offered: Callable[..., None],
    hung: Callable[..., Hangs],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr(failover, "TAKEOVER_S", 0.3)
    monkeypatch.setattr(failover, "STANDBY_S", 0.1)
    offered(cuda=lambda: hung("cuda", method), reference=ReferenceScorer)
    service = Failover(Raises(), weights, deadline=0.3)
    start = time.perf_counter()
    assert right(weights, service)
    assert time.perf_counter() - start < 5
    assert [s.target for s in service.switches] == ["cuda", "reference"]
    assert "0.3 s" in service.failed["cuda"]


def test_nothing_left(weights: Weights, offered: Callable[..., None]) -> None:
    offered(reference=lambda: Raises("reference"))
    service = Failover(Raises(), weights)
    start = time.perf_counter()
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match=r"no back end is left \(fpga: no such device; reference: "):
            service.score(CODES)
    assert time.perf_counter() - start < failover.DEADLINE_S / 2  # nobody waits for a scorer that is closed


def test_the_simulation_does_not_stand_in_for_hardware(weights: Weights, offered: Callable[..., None]) -> None:
    offered(rtl=lambda: Good("rtl"), reference=ReferenceScorer)
    service = Failover(Raises(), weights)
    assert right(weights, service)
    assert service.name == "reference"


def test_a_hung_back_end_is_not_restored_before_its_call_ends(
    weights: Weights, offered: Callable[..., None], hung: Callable[..., Hangs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So threads and batches that are left behind are at most one for each back end, however often one asks."""
    monkeypatch.setattr(failover, "IDLE_S", 0.05)
    first = hung("fpga")
    offered(fpga=Good, reference=ReferenceScorer)
    service = Failover(first, weights, deadline=0.2)
    assert right(weights, service)
    before = len(threads())
    for _ in range(20):
        assert "still hangs" in str(service.restore("fpga"))
    assert len(threads()) == before
    first.end.set()
    while (told := service.restore("fpga")) is not None:
        assert "still hangs" in told
    assert service.name == "fpga"
    assert service.failed == {}
    assert right(weights, service)
    service.close()
    assert ended()
    assert first.closed


def test_restored_below_the_one_in_use_it_may_take_over_again(weights: Weights, offered: Callable[..., None]) -> None:
    cuda: list[type[Good]] = [Raises, Good, Good, Good, Good, Good]
    fpga = [Good(), Raises()]
    offered(fpga=lambda: fpga.pop(0), cuda=lambda: cuda.pop(0)("cuda"), reference=ReferenceScorer)
    service = Failover(Raises(), weights)
    assert right(weights, service)
    assert service.name == "reference"
    assert set(service.failed) == {"fpga", "cuda"}
    assert service.restore("fpga") is None
    assert service.name == "fpga"
    assert service.restore("cuda") is None
    assert service.name == "fpga"
    service._guarded._scorer.score = Raises().score  # type: ignore[union-attr]
    assert right(weights, service)
    assert service.name == "cuda"
    assert service.restore("fpga") == "no such device"
    assert service.name == "cuda"


def test_one_that_failed_is_passed_over_later(weights: Weights, offered: Callable[..., None]) -> None:
    """Cuda fails once; when the restored fpga fails again, cuda is not asked although it would run."""
    cuda: list[type[Good]] = [Raises, Good, Good, Good]
    offered(fpga=Good, cuda=lambda: cuda.pop(0)("cuda"), reference=ReferenceScorer)
    service = Failover(Raises(), weights)
    assert right(weights, service)
    assert service.restore("fpga") is None
    service._guarded._scorer.score = Raises().score  # type: ignore[union-attr]
    assert right(weights, service)
    assert service.name == "reference"
    assert set(service.failed) == {"fpga", "cuda"}


def test_restored_only_if_right_beyond_the_batch_it_failed_on(weights: Weights, offered: Callable[..., None]) -> None:
    """A board that answers the failed batch rightly and one of the extremes wrongly stays out."""

    class Narrow(Good):
        def score(self, codes: Any) -> Any:
            heads = super().score(codes).copy()
            heads[np.abs(codes.astype(int)).min(axis=1) >= 127] += 1
            return heads

    offered(fpga=Narrow, reference=ReferenceScorer)
    service = Failover(Raises(), weights)
    assert right(weights, service)
    assert Failover(Narrow(), weights, check_every=1).score(CODES).shape == (len(CODES), 4)
    assert "rows checked differ" in str(service.restore("fpga"))
    assert service.failed == {"fpga": service.restore("fpga")}  # asked again at once, the same is wrong
    assert service.name == "reference"


def test_restoring_beside_the_feed_does_not_hold_it_up(
    weights: Weights, offered: Callable[..., None], hung: Callable[..., Hangs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "IDLE_S", 0.05)
    made = [hung("fpga", "load")]
    offered(fpga=lambda: made[0], reference=ReferenceScorer)
    service = Failover(Raises(), weights)
    assert right(weights, service)
    told: list[str | None] = []
    beside = threading.Thread(target=lambda: told.append(service.restore("fpga")))
    beside.start()
    for _ in range(20):
        assert right(weights, service)
        assert service.name == "reference"
    assert not told
    while service._failed["fpga"].guard.idle(0):
        time.sleep(0.01)
    assert "still hangs" in str(service.restore("fpga"))
    made[0].end.set()
    beside.join(10)
    assert told == [None]
    assert service.name == "fpga"
    assert right(weights, service)


def test_a_service_that_is_dropped_leaves_no_thread(weights: Weights, offered: Callable[..., None]) -> None:
    service = Failover(Good(), weights)
    assert right(weights, service)
    assert threads()
    del service
    gc.collect()
    assert ended()


def test_cost_of_thread_and_check(weights: Weights, exercised: Callable[[str], None]) -> None:
    """What watching adds to a batch of 65,536 rows of the compiled scorer."""
    from microrisk.score.cpu_scorer import CpuScorer

    codes = market_like_codes(1 << 16, 4)
    plain, service = CpuScorer(), Failover(CpuScorer(), weights)
    plain.load(weights)
    bare, watched = (min(_seconds(f, codes) for _ in range(5)) for f in (plain.score, service.score))
    assert watched < bare + 0.2
    exercised(f"failover: a batch of 65,536 takes {bare * 1e3:.1f} ms bare, {watched * 1e3:.1f} ms watched")


def _seconds(function: Callable[[Any], Any], codes: Any) -> float:
    start = time.perf_counter()
    function(codes)
    return time.perf_counter() - start
