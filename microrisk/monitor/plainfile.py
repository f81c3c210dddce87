"""Small files of configuration and secrets: read whole, never more than a limit, and only when they are plain files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from microrisk.errors import UsageError


def read_plain(path: Path, limit: int, what: str, check: Callable[[os.stat_result], None] | None = None) -> bytes:
    """At most `limit` bytes of a file.

    Parameters
    ----------
    what : what it is called in errors, such as "the secret file"
    check : raises UsageError when owner or mode are wrong

    Raises
    ------
    UsageError : it cannot be read or is no plain file
    """
    descriptor = -1
    try:
        # not blocking: a pipe in the place of the file must not hang the start
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{what} {path} is no plain file")
        if check is not None:
            check(found)
        return _whole(descriptor, limit)
    except UsageError:
        raise
    except (OSError, ValueError) as why:
        raise UsageError(f"cannot read {what} {path}: {getattr(why, 'strerror', None) or why}") from why
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _whole(descriptor: int, limit: int) -> bytes:
    parts, have = [], 0
    while have < limit and (part := os.read(descriptor, limit - have)):
        parts.append(part)
        have += len(part)
    return b"".join(parts)
