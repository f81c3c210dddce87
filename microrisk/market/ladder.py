"""A running book of one instrument in plain Python, for episodes that are put into a recording.

Follows the rules of the engine for order-level feeds: unknown modifies become adds, a removal beyond the rest removes
the order, a duplicate add is ignored.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from microrisk.spec.records import Action, Flag

_ADD, _MODIFY, _REDUCE, _DELETE = int(Action.ADD), int(Action.MODIFY), int(Action.REDUCE), int(Action.DELETE)
_REPLACE, _CLEAR = int(Action.REPLACE), int(Action.CLEAR)
_KEPT = int(Flag.PRIORITY_KEPT)


class Ladder:
    """Resting orders by id and by level.

    Attributes
    ----------
    orders : id -> (side, px, qty), oldest place in the queue first within a level
    """

    def __init__(self) -> None:
        self.orders: dict[int, tuple[int, int, int]] = {}
        self._levels: dict[int, dict[int, dict[int, None]]] = {1: {}, -1: {}}
        self._prices: dict[int, list[int]] = {1: [], -1: []}

    def best(self, side: int) -> int | None:
        """Best price of a side."""
        prices = self._prices[side]
        return (prices[-1] if side > 0 else prices[0]) if prices else None

    def prices(self, side: int, n: int) -> list[int]:
        """The first `n` price levels of a side, best first."""
        prices = self._prices[side]
        return prices[: -n - 1 : -1] if side > 0 else prices[:n]

    def queue(self, side: int, px: int) -> list[int]:
        """Ids of a level, first in the queue first."""
        return list(self._levels[side].get(px, ()))

    def put(self, order_id: int, side: int, px: int, qty: int) -> None:
        """A new order at the back of its level; ignored when the id lives or nothing is in it."""
        if order_id in self.orders or qty <= 0 or side not in (1, -1):
            return
        self.orders[order_id] = (side, px, qty)
        level = self._levels[side].get(px)
        if level is None:
            level = self._levels[side][px] = {}
            insort(self._prices[side], px)
        level[order_id] = None

    def drop(self, order_id: int) -> tuple[int, int, int] | None:
        """Take an order out; what it was, or None for an unknown one."""
        order = self.orders.pop(order_id, None)
        if order is not None:
            side, px, _ = order
            level = self._levels[side][px]
            del level[order_id]
            if not level:
                del self._levels[side][px]
                prices = self._prices[side]
                del prices[bisect_left(prices, px)]
        return order

    def clear(self) -> None:
        """Everything goes."""
        self.__init__()  # type: ignore[misc]

    def apply(self, action: int, order_id: int, ref: int, side: int, px: int, qty: int, flags: int) -> None:
        """One event of an order-level feed."""
        if action == _ADD:
            self.put(order_id, side, px, qty)
        elif action == _REDUCE:
            self._reduce(order_id, qty)
        elif action == _DELETE:
            self.drop(order_id)
        elif action == _MODIFY:
            self._modify(order_id, side, px, qty, flags)
        elif action == _REPLACE:
            old = self.drop(order_id)
            if old is not None:
                self.put(ref, old[0], px, qty)
        elif action == _CLEAR:
            self.clear()

    def _reduce(self, order_id: int, qty: int) -> None:
        order = self.orders.get(order_id)
        if order is not None and qty > 0:
            if qty >= order[2]:
                self.drop(order_id)
            else:
                self.orders[order_id] = (order[0], order[1], order[2] - qty)

    def _modify(self, order_id: int, side: int, px: int, qty: int, flags: int) -> None:
        order = self.orders.get(order_id)
        if qty < 0:
            return
        side = side or (order[0] if order else 0)
        keeps = order is not None and order[:2] == (side, px) and (qty <= order[2] or flags & _KEPT)
        if keeps and qty > 0:
            self.orders[order_id] = (side, px, qty)
        else:
            self.drop(order_id)
            self.put(order_id, side, px, qty)
