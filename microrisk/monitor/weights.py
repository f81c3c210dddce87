"""How far each source is believed at present: a weight 0..1 with its reasons in words.

Formula (integers; ONE = 2**16). Each kind of trouble k has a score that grows by POINTS[k] for every new case, and
halves every HALF_LIFE_NS of the core's clock (linear between two halvings). With silence and disagreement beside them,

    weight = cap(state) * product over k of HALF[k] / (HALF[k] + score[k])

so that a score of HALF[k] halves the weight. Silence counts in ms beyond GRACE_MS, disagreement in 1/1000 bp of the
distance of a source's mid price from the nearest other venue's beyond TOLERANCE_MBP; both are what they are now and do
not decay. Every factor falls with its score, every score rises with its cases: more trouble never raises a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from microrisk.monitor.hub import LIVE, STALE, SUSPECT

ONE = 1 << 16
HALF_LIFE_NS = 30_000_000_000
"""30 s: a single gap is forgotten within minutes."""
GRACE_MS, SILENCE_HALF_MS = 1_000, 10_000
TOLERANCE_MBP, DISTANCE_HALF_MBP = 5_000, 20_000
"""5 bp of distance between venues are no finding; 25 bp halve the weight."""
CAPS = {LIVE: ONE, STALE: ONE // 4, SUSPECT: ONE // 4}
"""Weight at most, by state; every other state has 0."""


class Trouble(NamedTuple):
    """A kind of trouble: the counts that it is made of, points a case and points that halve the weight."""

    kind: str
    counts: Mapping[str, int]
    half: int
    words: str


TROUBLES = (
    Trouble("gap", {"gap": 16, "missing": 1}, 64, "messages were missing"),
    Trouble("disorder", {"reordered": 1, "late": 1}, 4096, "messages came out of order"),
    Trouble("damage", {"malformed": 16, "resyncs": 64}, 64, "messages were damaged, or books had to begin again"),
    Trouble("disagreement", {"checksum_mismatch": 64, "crossed": 16}, 64, "its books contradicted themselves"),
)


class Reliability:
    """Weights of all sources; the state is integers, and time is what the caller says."""

    def __init__(self) -> None:
        self._scores: dict[int, list[int]] = {}
        self._before: dict[int, dict[str, int]] = {}
        self._at_ns: dict[int, int] = {}
        self._distances_mbp: dict[int, int] = {}

    def disagree(self, distances_mbp: Mapping[int, int]) -> None:
        """Distance of each source's mid price from the nearest other venue's, 1/1000 bp; none = 0."""
        self._distances_mbp = dict(distances_mbp)

    def weigh(self, feed: int, counts: Mapping[str, int], state: str, now_ns: int) -> tuple[float, list[str]]:
        """Weight and reasons of a source.

        Parameters
        ----------
        feed : its number
        counts : totals by name (see TROUBLES), and `silent_ms`; a total that falls begins anew
        state : of the feed
        now_ns : the core's clock; a time before the last one counts as that
        """
        scores = self._scored(feed, counts, now_ns)
        silent_ms = max(int(counts.get("silent_ms", 0)) - GRACE_MS, 0)
        apart_mbp = max(self._distances_mbp.get(feed, 0) - TOLERANCE_MBP, 0)
        parts = [(score, trouble.half * ONE) for score, trouble in zip(scores, TROUBLES, strict=True)]
        parts += [(silent_ms, SILENCE_HALF_MS), (apart_mbp, DISTANCE_HALF_MBP)]
        weight = CAPS.get(state, 0)
        for score, half in parts:
            weight = weight * half // (half + score)
        return weight / ONE, self._reasons(feed, state, parts)

    def _scored(self, feed: int, counts: Mapping[str, int], now_ns: int) -> list[int]:
        """Scores in 1/ONE points: decayed up to now, then the new cases."""
        before = self._before.get(feed, {})
        scores = self._scores.setdefault(feed, [0] * len(TROUBLES))
        passed = max(now_ns - self._at_ns.get(feed, now_ns), 0)
        for i, trouble in enumerate(TROUBLES):
            fresh = sum(points * _more(counts, before, name) for name, points in trouble.counts.items())
            scores[i] = decayed(scores[i], passed) + fresh * ONE
        names = {name for trouble in TROUBLES for name in trouble.counts}
        self._before[feed] = {name: int(counts.get(name, 0)) for name in names}
        self._at_ns[feed] = max(now_ns, self._at_ns.get(feed, now_ns))
        return scores

    def _reasons(self, feed: int, state: str, parts: list[tuple[int, int]]) -> list[str]:
        """Whatever takes more than a twentieth of the weight, the worst first."""
        words = [trouble.words for trouble in TROUBLES]
        words.append(f"nothing has come for {(parts[-2][0] + GRACE_MS) / 1000:.1f} s")
        words.append(f"its mid price is {self._distances_mbp.get(feed, 0) / 1000:.1f} bp from the other venues'")
        taken = [(score * 1000 // (half + score), text) for (score, half), text in zip(parts, words, strict=True)]
        found = [text for share, text in sorted(taken, key=lambda t: -t[0]) if share >= 50]
        return ([] if state == LIVE else [f"it is {state}"]) + found


def decayed(score: int, passed_ns: int) -> int:
    """A score after some time: halved for every whole half-life, linear in the rest; rounded down."""
    halvings, rest = divmod(passed_ns, HALF_LIFE_NS)
    return (score >> min(halvings, 1 << 20)) * (2 * HALF_LIFE_NS - rest) // (2 * HALF_LIFE_NS)


def _more(counts: Mapping[str, int], before: Mapping[str, int], name: str) -> int:
    now, then = int(counts.get(name, 0)), int(before.get(name, 0))
    return now - then if now >= then else now
