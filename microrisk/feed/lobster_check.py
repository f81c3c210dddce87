"""How far a LOBSTER message file alone determines its orderbook file, and whether the two agree there.

Start from the first image. On each side everything up to a frontier price is known: the N-th level shown, or no limit
when fewer than N levels are occupied. A message inside the frontier changes a known level; one beyond it tells of
orders whose company is not known, so it determines nothing. When N levels are known, the N-th becomes the frontier,
because what happens behind it is told no more. An execution beyond the frontier moves it out to just before that
price: a displayed order trades only when nothing better is left. Row k of the orderbook file is determined in as many
levels as are known after message k. Source: LOBSTER, "Sample Files Readme" (levels, window).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microrisk.feed.lobster_csv import DUMMY_ASK, DUMMY_BID, Images, Messages
from microrisk.spec.units import Side

_SIDES = ((int(Side.ASK), 0), (int(Side.BID), 2))
"""Side and its first column in a group of four."""


@dataclass(frozen=True)
class Comparison:
    """Cells of the rows after the first one.

    Attributes
    ----------
    total : cells (four a level)
    determined : cells that the first image and the messages determine
    equal : determined cells that agree with the orderbook file
    first_difference : (row, column) of the first determined cell that does not, 0-based, or None
    """

    total: int
    determined: int
    equal: int
    first_difference: tuple[int, int] | None

    @property
    def share(self) -> float:
        """Determined part of all cells."""
        return self.determined / self.total if self.total else 1.0


class _Known:
    """The known levels of one side."""

    def __init__(self, side: int, image: list[int], levels: int) -> None:
        self.side, self._levels = side, levels
        self.sums = {p: q for p, q in zip(image[0::2], image[1::2], strict=True) if q > 0}
        self.unlimited = len(self.sums) < levels
        self._frontier = min((side * p for p in self.sums), default=0)

    def apply(self, change: int, price: int, *, executed: bool) -> None:
        """Add `change` to a level, if the frontier lets it be known."""
        if not self.unlimited and self.side * price < self._frontier:
            if executed and not self.sums:
                self._frontier = self.side * price + 1
            return
        left = self.sums.get(price, 0) + change
        if left == 0:
            self.sums.pop(price, None)
        else:
            self.sums[price] = left
        if len(self.sums) >= self._levels:
            best_first = sorted(self.sums, reverse=self.side > 0)
            for beyond in best_first[self._levels :]:
                del self.sums[beyond]
            self.unlimited, self._frontier = False, self.side * best_first[self._levels - 1]

    def cells(self) -> list[int]:
        """price, size, price, size... best first."""
        return [x for p in sorted(self.sums, reverse=self.side > 0) for x in (p, self.sums[p])]


def determined_images(messages: Messages, images: Images) -> tuple[Images, NDArray[np.bool_]]:
    """The orderbook file as far as the first image and the messages give it.

    Parameters
    ----------
    messages, images : row k of one belongs to row k of the other

    Returns
    -------
    int64[rows, 4*levels] with 0 where nothing is determined, and bool of the same shape: determined. Row 0 is given.
    """
    levels = images.shape[1] // 4
    out, sure = np.zeros_like(images), np.zeros(images.shape, bool)
    out[0], sure[0] = images[0], True
    first = images[0].reshape(levels, 4)
    known = {s: _Known(s, first[:, c : c + 2].ravel().tolist(), levels) for s, c in _SIDES}
    rows = zip(*(messages[n].tolist() for n in ("type", "size", "price", "direction")), strict=True)
    next(rows)
    for k, (kind, size, price, side) in enumerate(rows, start=1):
        if 1 <= kind <= 4:
            known[side].apply(size if kind == 1 else -size, price, executed=kind == 4)
        for s, c in _SIDES:
            cells = known[s].cells()
            n = len(cells) // 2
            view, ok = out[k].reshape(levels, 4), sure[k].reshape(levels, 4)
            view[:n, c], view[:n, c + 1], ok[:n, c : c + 2] = cells[0::2], cells[1::2], True
            if known[s].unlimited:
                # what is not occupied reads as a dummy price with size 0
                view[n:, c], ok[n:, c : c + 2] = DUMMY_BID if s > 0 else DUMMY_ASK, True
    return out, sure


def compare_images(messages: Messages, images: Images) -> Comparison:
    """Compare the determined cells with the orderbook file."""
    mine, sure = determined_images(messages, images)
    mine, sure, theirs = mine[1:], sure[1:], images[1:]
    differs = np.argwhere(sure & (mine != theirs))
    first = (int(differs[0][0]) + 1, int(differs[0][1])) if len(differs) else None
    return Comparison(theirs.size, int(sure.sum()), int(sure.sum()) - len(differs), first)
