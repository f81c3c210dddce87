"""Constant matrix times vector as shifts and adds, with common sub-expressions shared.

Every weight is written in canonical signed digits; a row is a sum of terms. The pair of terms that saves most adder
bits over all rows is made once and takes the place of its occurrences, until no pair occurs twice (the greedy
two-term elimination of Hartley, IEEE TCAS-II 43(10), 1996). A pair is only shared where the row keeps its depth:
with terms that are ready at levels d, a row is done at the least D with sum 2**d <= 2**D, and no row may become
deeper than the deepest row has to be (plus `slack` levels).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from hdl.graph import Graph, Term

Key = tuple[int, int, int, int]
"""(a, b, shift, sign) of a + sign * (b << shift); a is the term with the smaller shift."""


def signed_digits(value: int) -> list[tuple[int, int]]:
    """Canonical signed digits of an integer as (shift, sign), lowest first; no two neighbours are both set."""
    out, shift = [], 0
    while value:
        if value & 1:
            sign = 2 - (value & 3)
            out.append((shift, sign))
            value -= sign
        value >>= 1
        shift += 1
    return out


def least_level(levels: Sequence[int]) -> int:
    """Level at which a sum of terms that are ready at these levels can be done with two-input adders."""
    return (sum(1 << d for d in levels) - 1).bit_length()


class Sums:
    """Rows of terms over the nodes of a graph; `share`, then `finish`.

    Parameters
    ----------
    graph : nodes are added to it
    matrix : integers [rows, len(inputs)]
    inputs : node of each column
    offset : integers [rows], added to each row
    levels : at which level each input is ready; None = all at 0
    """

    def __init__(
        self, graph: Graph, matrix: ArrayLike, inputs: Sequence[int], offset: ArrayLike,
        levels: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.level = dict(zip(inputs, levels or [0] * len(inputs), strict=True))
        w, b = np.asarray(matrix, np.int64), np.asarray(offset, np.int64)
        self.rows = [self._terms(row.tolist(), inputs, int(c)) for row, c in zip(w, b, strict=True)]
        self._places: dict[Key, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._heap: list[tuple[int, Key]] = []

    def _terms(self, row: list[int], inputs: Sequence[int], offset: int) -> list[Term]:
        terms = []
        for weight, node in zip(row, inputs, strict=True):
            x = self.graph.nodes[node]
            if x.op == "const":
                offset += weight * x.numbers[0]
            else:
                terms += [Term(node, shift, sign) for shift, sign in signed_digits(weight)]
        if offset:
            node = self.graph.const(offset)
            self.level[node] = 0
            terms.append(Term(node))
        return terms

    # ---- sharing ----

    def share(self, slack: int = 0) -> None:
        """Make pairs that occur in several places once, deepest row at most `slack` levels deeper than need be."""
        self._limit = slack + max((self._depth(t) for t in self.rows), default=0)
        for r, terms in enumerate(self.rows):
            for pair in combinations(terms, 2):
                self._count(r, pair, 1)
        while (key := self._best()) is not None:
            self._replace(key)

    def _depth(self, terms: Sequence[Term]) -> int:
        return least_level([self.level[t.node] for t in terms]) if terms else 0

    def _count(self, row: int, pair: tuple[Term, Term], by: int) -> None:
        key = self._key(*pair)
        if key is None:
            return
        places = self._places[key]
        places[row] += by
        if places[row] <= 0:
            del places[row]
        if by > 0:
            self._push(key)

    def _key(self, s: Term, t: Term) -> Key | None:
        """None for a pair with a constant: it belongs to its row."""
        if "const" in (self.graph.nodes[s.node].op, self.graph.nodes[t.node].op):
            return None
        a, b = sorted((s, t), key=lambda x: (x.shift, x.node))
        return a.node, b.node, b.shift - a.shift, a.sign * b.sign

    def _push(self, key: Key) -> None:
        times = sum(self._places[key].values())
        if times >= 2:
            heapq.heappush(self._heap, (-(times - 1) * self._cost(key), key))

    def _cost(self, key: Key) -> int:
        """Bits of the adder."""
        a, b, shift, _ = key
        return max(self.graph.nodes[a].width - shift, self.graph.nodes[b].width) + 1

    def _best(self) -> Key | None:
        while self._heap:
            value, key = heapq.heappop(self._heap)
            times = sum(self._places[key].values())
            if times >= 2 and -value == (times - 1) * self._cost(key):
                return key
        return None

    def _replace(self, key: Key) -> None:
        """Put the new node in every row where the row stays shallow enough; forget the pair elsewhere."""
        found = [(r, found) for r in list(self._places[key]) if (found := list(self._occurrences(r, key)))]
        if sum(len(pairs) for _, pairs in found) < 2:
            self._places[key].clear()
            return
        a, b, shift, sign = key
        node = self.graph.add(a, b, shift, sign)
        self.level[node] = max(self.level[a], self.level[b]) + 1
        for r, pairs in found:
            for s, t in pairs:
                self._swap(r, s, t, Term(node, s.shift, s.sign))
        self._places[key].clear()

    def _occurrences(self, row: int, key: Key) -> Iterator[tuple[Term, Term]]:
        """Pairs of this key in the row that share no term and can all be replaced without making it too deep."""
        a, b, shift, sign = key
        left = list(self.rows[row])
        levels = sum(1 << self.level[t.node] for t in left)
        grow = (2 << max(self.level[a], self.level[b])) - (1 << self.level[a]) - (1 << self.level[b])
        for s in list(left):
            t = Term(b, s.shift + shift, s.sign * sign)
            if s.node != a or s not in left or t not in left or (s is t or s == t):
                continue
            if levels + grow > 1 << self._limit:
                return
            levels += grow
            left.remove(s)
            left.remove(t)
            yield s, t

    def _swap(self, row: int, s: Term, t: Term, new: Term) -> None:
        terms = self.rows[row]
        self._count(row, (s, t), -1)
        for old in (s, t):
            terms.remove(old)
        for other in terms:
            self._count(row, (s, other), -1)
            self._count(row, (t, other), -1)
            self._count(row, (new, other), 1)
        terms.append(new)

    # ---- finishing ----

    def finish(self) -> list[int]:
        """Add up what is left of each row; returns the node of each row."""
        return [self._sum(terms) for terms in self.rows]

    def _sum(self, terms: list[Term]) -> int:
        """Earliest two first; of equally early ones, those with the nearest shifts."""
        left = list(terms)
        if not left:
            return self.graph.const(0)
        while len(left) > 1:
            left.sort(key=lambda t: (self.level[t.node], t.shift, t.node))
            k = self._partner(left)
            s, t = left[0], left[k]
            left = [x for i, x in enumerate(left) if i not in (0, k)]
            left.append(self._combine(s, t))
        return self._plain(left[0])

    def _partner(self, left: list[Term]) -> int:
        """Among the terms that are as early as the second, one of the other sign: sums then end up positive."""
        early = [k for k in range(1, len(left)) if self.level[left[k].node] == self.level[left[1].node]]
        return min(early, key=lambda k: (abs(left[k].shift - left[0].shift), k))

    def _combine(self, s: Term, t: Term) -> Term:
        a, b = sorted((s, t), key=lambda x: (x.shift, x.node))
        shift = b.shift - a.shift
        level = max(self.level[a.node], self.level[b.node]) + 1
        if a.sign < 0 < b.sign:
            term = Term(self.graph.rsub(a.node, b.node, shift), a.shift, 1)
        else:
            term = Term(self.graph.add(a.node, b.node, shift, a.sign * b.sign), a.shift, a.sign)
        self.level[term.node] = min(level, self.level.get(term.node, level))
        return term

    def _plain(self, term: Term) -> int:
        """The node of a term, with its sign and shift carried out where it has any."""
        node = term.node
        if term.sign < 0:
            zero = self.graph.const(0)
            level = self.level[node] + 1
            node = self.graph.rsub(node, zero)
            self.level[node] = level
        if term.shift:
            level = self.level[node]
            node = self.graph.join(self.graph.const(0), node, term.shift)
            self.level[node] = level
        return node
