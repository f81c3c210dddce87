"""Keys of configuration: structs of fields, each with its range and a sentence; texts and TOML values made into them.

A wrong key or value is a UsageError that names the key, what is allowed, and the nearest thing that exists.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from collections.abc import Iterable
from datetime import date
from typing import Any, get_type_hints

import msgspec

from microrisk.errors import UsageError
from microrisk.monitor.secret import redacted

SHOWN = 60
"""Characters of a wrong value that an error repeats."""
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")
_NUMBER = re.compile(r"\d{1,5}")


class Endpoint:
    """A host (name, IPv4 or IPv6 address) and a port, 1..65535. No struct: msgspec leaves its decoding to us."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Endpoint({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def endpoint(text: str) -> Endpoint:
    """`HOST:PORT` or `[IPV6]:PORT`; ValueError with what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not _NUMBER.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise ValueError("HOST:PORT is needed, port 1..65535")
    return Endpoint(_host(host), int(port))


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return str(ipaddress.IPv6Address(text[1:-1]))
    if not _HOST.fullmatch(text):
        raise ValueError("a host is a name or an IPv4 address, or an IPv6 address in brackets")
    return text


def _decoded(kind: type, value: Any) -> Any:
    """What msgspec cannot make itself."""
    if kind is Endpoint and isinstance(value, str):
        return endpoint(value)
    raise ValueError(f"expected {kind.__name__}")


class Key(msgspec.Struct, frozen=True):
    """One field of a struct of options.

    Attributes
    ----------
    kind : its type with its range, as msgspec takes it
    doc : what it says; the remedy in errors
    """

    name: str
    kind: Any
    default: Any
    doc: str

    def convert(self, value: Any, *, text: bool) -> Any:
        """The value as its type; `text`: it comes from a URL, the environment or a flag.

        Raises
        ------
        ValueError : not of this type, or out of range
        """
        if text:
            value = self._split(value)
        try:
            out = msgspec.convert(value, self.kind, strict=not text, dec_hook=_decoded)
        except msgspec.ValidationError as why:
            raise ValueError(_plain(str(why))) from why
        if isinstance(out, float) and not math.isfinite(out):
            raise ValueError("expected a finite number")
        return out

    def _split(self, value: str) -> Any:
        """Lists in a text: JSON when it begins like one, else parts between commas."""
        if not isinstance(self.default, tuple):
            return value
        if value.lstrip().startswith("["):
            try:
                return msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError) as why:
                raise ValueError(f"no JSON list ({why})") from why
        return [part for part in (p.strip() for p in value.split(",")) if part]

    def refusal(self, where: str, value: Any, why: ValueError) -> str:
        """The sentence about a wrong value."""
        return f"{where} = {shown(value)}: {why}; {self.name}: {self.doc}"


def keys_of(struct: type[msgspec.Struct]) -> dict[str, Key]:
    """The keys of a struct, in its order; their sentences are the descriptions of its types."""
    hints = get_type_hints(struct, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(struct):
        metas = [m for m in getattr(hints[field.name], "__metadata__", ()) if isinstance(m, msgspec.Meta)]
        doc = next((m.description for m in metas if m.description), "")
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        found[field.name] = Key(field.name, hints[field.name], default, doc)
    return found


def shown(value: Any) -> str:
    """A value as an error repeats it: one line, not long, without the secrets that are known by their form."""
    text = redacted(repr(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """The sentence about a name that does not exist: the closest one, then all."""
    names = list(allowed)
    near = difflib.get_close_matches(name.lower()[:64], names, 1, 0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{what} {shown(name)} is not known; {hint}allowed: {', '.join(names) or 'none'}"


def settle(struct: type[msgspec.Struct], given: dict[str, Any], what: str, *, text: bool) -> dict[str, Any]:
    """Values by key as the struct wants them.

    Raises
    ------
    UsageError : a key that the struct has not, or a value that its type refuses
    """
    keys, out = keys_of(struct), {}
    for name, value in given.items():
        key = keys.get(name)
        if key is None:
            raise UsageError(unknown(f"{what}: option", name, keys))
        try:
            out[name] = key.convert(value, text=text and isinstance(value, str))
        except ValueError as why:
            raise UsageError(key.refusal(f"{what}: {name}", value, why)) from why
    return out


def as_text(value: Any) -> str:
    """A value as a URL or an environment variable carries it."""
    if isinstance(value, tuple | list):
        if any(isinstance(v, tuple | list) for v in value):
            return msgspec.json.encode(value).decode()
        return ",".join(map(as_text, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.isoformat() if isinstance(value, date) else str(value)


def _plain(text: str) -> str:
    """The sentence of msgspec, without its marks and patterns: the key's own sentence says the form."""
    text = text.partition(" matching regex")[0] + (" of another form" if " matching regex" in text else "")
    return text.replace("`", "").replace("Expected", "expected", 1).replace("Invalid", "invalid", 1)
