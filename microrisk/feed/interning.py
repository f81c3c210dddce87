"""Venue order ids that are text (UUIDs and the like) as dense u64 handles: 1, 2, 3 in the order of first sight."""

from __future__ import annotations


class Interner:
    """Text ids <-> handles. Handle 0 is never given: it means "no order" in EVENT.

    Only ids that may still be met are looked up (`handle`); `forget` takes one out of that table when its order is
    gone, while its label stays readable, so memory grows by the length of an id per order and not by a table entry.
    """

    def __init__(self) -> None:
        self._handles: dict[str, int] = {}
        self._labels: list[str] = [""]

    def intern(self, text: str) -> int:
        """The handle of `text`, a new one when it is not known."""
        handle = self._handles.get(text)
        if handle is None:
            handle = len(self._labels)
            self._handles[text] = handle
            self._labels.append(text)
        return handle

    def handle(self, text: str) -> int:
        """The handle of a known id, 0 for an unknown one."""
        return self._handles.get(text, 0)

    def forget(self, text: str) -> None:
        """`text` will not be met again; should it be, it gets a new handle."""
        self._handles.pop(text, None)

    def label(self, handle: int) -> str:
        """The text of a handle; a handle never given reads as its number."""
        return self._labels[handle] if 0 < handle < len(self._labels) else str(handle)

    def __len__(self) -> int:
        """Ids that may still be met."""
        return len(self._handles)


class PassingInterner(Interner):
    """An Interner whose labels leave with their ids: for sessions without end. Handles are never given twice."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[int, str] = {}
        self._next = 1

    def intern(self, text: str) -> int:
        """As `Interner.intern`."""
        handle = self._handles.get(text)
        if handle is None:
            handle, self._next = self._next, self._next + 1
            self._handles[text] = handle
            self._names[handle] = text
        return handle

    def forget(self, text: str) -> None:
        """As `Interner.forget`; the handle then reads as its number."""
        handle = self._handles.pop(text, None)
        if handle is not None:
            del self._names[handle]

    def label(self, handle: int) -> str:
        """The text of a handle whose id may still be met, else its number."""
        return self._names.get(handle, str(handle))
