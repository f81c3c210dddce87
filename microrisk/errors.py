"""Every exception of the package: each is a MicroriskError and the builtin a caller would expect."""

from __future__ import annotations


class MicroriskError(Exception):
    """Root of everything this package raises on purpose."""


class UsageError(MicroriskError, ValueError):
    """The request cannot be meant: a missing file, an unknown format, options that exclude each other.

    The command line ends with exit code 2.
    """


class FeedError(MicroriskError, ValueError):
    """Input that cannot be read at all: unreadable, empty, or cut before its first message (exit code 3).

    Parameters
    ----------
    text : what is wrong, in one sentence with the numbers
    path : the file, where there is one
    offset : byte offset (or line number) of the place
    sequence : the feed's own sequence number at the place
    """

    def __init__(
        self, text: str, *, path: str | None = None, offset: int | None = None, sequence: int | None = None
    ) -> None:
        place = [f"{k} {v}" for k, v in (("file", path), ("at", offset), ("sequence", sequence)) if v is not None]
        super().__init__(f"{text} ({', '.join(place)})" if place else text)
        self.path, self.offset, self.sequence = path, offset, sequence


class BookIntegrityError(MicroriskError, ValueError):
    """A finding raised instead of counted, when the policy is to stop (exit code 3)."""

    def __init__(self, kind: str, *, instrument: str, order_id: int, sequence: int, ts: int) -> None:
        super().__init__(f"{kind} in {instrument}: order {order_id}, sequence {sequence}, ts {ts} ns")
        self.kind, self.instrument = kind, instrument
        self.order_id, self.sequence, self.ts = order_id, sequence, ts


class EncodeError(MicroriskError, ValueError):
    """A message or event that the target format cannot hold.

    Parameters
    ----------
    field : the field's name
    value : what was asked for
    allowed : the range or form that the format has, in words
    """

    def __init__(self, field: str, value: object = None, allowed: str = "") -> None:
        super().__init__(f"{field} = {value!r}: allowed is {allowed}" if allowed else field)
        self.field, self.value, self.allowed = field, value, allowed


class JournalError(MicroriskError, ValueError):
    """A journal or a checkpoint that cannot be continued: damage in the middle, a missing block, another build's state.

    The text names the place and the remedy (exit code 3).
    """


class WeightFileError(MicroriskError, ValueError):
    """A weight file that must not be used: missing tensor, wrong shape, a row that could overflow."""


class ModelNotFound(MicroriskError, LookupError):
    """No model of that name in the package, the registry, or the file system."""


class SpecMismatch(MicroriskError, RuntimeError):
    """Two parts were made from different specifications; the text says what to rebuild."""


class BackendUnavailable(MicroriskError, RuntimeError):
    """A scorer was asked for by name and cannot run here; the text gives the reason and what would work."""


class EvaluationError(MicroriskError, ValueError):
    """The harness refuses: splits that overlap, thresholds without calibration days, labels without episodes."""


class OutputError(MicroriskError, OSError):
    """A result could not be written: disk full, folder read-only. The text names the file (exit code 3)."""


class FetchError(MicroriskError, OSError):
    """A file could not be got: not there, refused, the connection kept breaking, limits (exit code 3)."""


class ChecksumError(FetchError):
    """A fetched file is not what its publisher says it is; the text names both sums and where the file was kept."""
