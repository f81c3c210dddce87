"""What the harness found: plain numbers, a table for a terminal, JSON for everything else."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % block-bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Outcome:
    """One episode: seconds to its first alarm, None when missed; `by` = the part of a union that raised it."""

    session: str
    instrument: str
    kind: str
    start_ns: int
    delay_s: float | None
    by: str | None = None


@dataclass(frozen=True)
class AtBudget:
    """Figures at the threshold of one budget.

    Attributes
    ----------
    budget : false alarms an hour allowed on the calibration sessions
    threshold : alarm = smoothed score > threshold
    false_per_hour : measured on the test sessions, per hour of time away from episodes
    recall, recall_by_kind : share of episodes found
    chance : recall of the same alarms turned in time
    delay_median_s, delay_p90_s : over all episodes, a missed one counting as endless; None = endless
    found_delay_median_s, found_delay_p90_s : over found episodes; None when none was found
    outcomes : every episode
    """

    budget: float
    threshold: float
    false_per_hour: Figure
    recall: Figure
    recall_by_kind: Mapping[str, Figure]
    chance: float
    delay_median_s: float | None
    delay_p90_s: float | None
    found_delay_median_s: float | None
    found_delay_p90_s: float | None
    outcomes: Sequence[Outcome]

    @property
    def kept(self) -> bool:
        """The budget held on the test sessions: no more than twice the false alarms that were allowed.

        The lower end of the interval decides, so that one unlucky session does not.
        """
        return self.false_per_hour.low <= 2 * self.budget


@dataclass(frozen=True)
class Row:
    """One detector."""

    name: str
    base_rate: float
    pr_auc: Figure
    vus_pr: Figure
    pr_auc_by_kind: Mapping[str, float | None]
    at: Sequence[AtBudget]


@dataclass(frozen=True)
class Result:
    """The harness table: `kinds` = episodes of each kind in the test sessions."""

    rows: Sequence[Row]
    kinds: Mapping[str, int]
    sessions: Mapping[str, int]
    hours: Mapping[str, float]
    settings: Mapping[str, Any]

    def row(self, name: str) -> Row:
        """By detector name; KeyError otherwise."""
        return {r.name: r for r in self.rows}[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers; numbers that are not finite become None."""
        out: dict[str, Any] = _plain(dataclasses.asdict(self))
        return out

    def to_json(self) -> str:
        """`to_dict` as one JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def table(self) -> Table:
        """One row a detector, areas and both ends of each budget."""
        budgets = [a.budget for a in self.rows[0].at] if self.rows else []
        table = Table(title=self._title(), title_justify="left", caption=self._caption(), caption_justify="left")
        table.add_column("detector", no_wrap=True)
        for head in ("PR-AUC", "VUS-PR"):
            table.add_column(head)
        for b in budgets:
            for head in (f"recall at {b:g}/h", "chance", "false/h", "delay s"):
                table.add_column(head)
        for row in self.rows:
            table.add_row(row.name, str(row.pr_auc), str(row.vus_pr), *(c for a in row.at for c in _cells(a)))
        return table

    def kind_table(self, budget: float) -> Table:
        """Recall of every kind at one budget."""
        table = Table(title=f"recall by kind at {budget:g} false alarms/h", title_justify="left")
        table.add_column("detector", no_wrap=True)
        for kind, n in self.kinds.items():
            table.add_column(f"{kind} ({n})")
        for row in self.rows:
            at = next(a for a in row.at if a.budget == budget)
            table.add_row(row.name, *(str(at.recall_by_kind[k]) for k in self.kinds))
        return table

    def _title(self) -> str:
        episodes = sum(self.kinds.values())
        return (
            f"{episodes} episodes in {self.sessions['test']} test sessions ({self.hours['test']:.1f} h); thresholds "
            f"from {self.sessions['calibration']} clean sessions ({self.hours['calibration']:.1f} h)"
        )

    def _caption(self) -> str:
        base = self.rows[0].base_rate if self.rows else float("nan")
        s = self.settings
        return (
            f"base rate {base:.3f} (PR-AUC of knowing nothing); {s['bin_ms']} ms wall-clock bins; VUS window "
            f"{s['vus_window_bins']} bins; 95 % intervals over sessions, {s['draws']} draws; chance = recall of "
            "the same alarms at random times; delay = median of the found; ! = over twice the budget in test"
        )


def _cells(at: AtBudget) -> tuple[str, str, str, str]:
    delay = "-" if at.found_delay_median_s is None else f"{at.found_delay_median_s:.1f}"
    false = f"{at.false_per_hour.value:.1f}{'' if at.kept else ' !'}"
    return str(at.recall), f"{at.chance:.2f}", false, delay


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
