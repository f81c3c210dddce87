"""Where a webhook may go: https to public addresses; what its operator allowed besides. Checked on the address itself.

A name is resolved, every address it has is checked, and the connection goes to a checked address: a name that changes
its answer between check and connection (DNS rebinding) reaches nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from microrisk.errors import UsageError
from microrisk.monitor.secret import redacted

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]
"""Name and port to addresses; OSError when there is none."""


class Destination(msgspec.Struct, frozen=True):
    """A checked URL: what is connected to, and what is sent. `secure`: TLS, whose certificate is for `host`."""

    secure: bool
    host: str
    port: int
    target: str
    private: bool

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.secure else 80) else f"{name}:{self.port}"


def check_url(url: str, *, private: bool = False) -> Destination:
    """The parts of a webhook's URL.

    private : private and loopback addresses are allowed; http only to a loopback address given as number or `localhost`

    Raises
    ------
    UsageError : no URL, no https, a user or password in it, an address that is blocked
    """
    shown = redacted(url)[:120]
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as why:
        raise UsageError(f"{shown!r} is no URL ({why})") from why
    if not host or not url.isprintable() or not url.isascii() or " " in url or port == 0:
        raise UsageError(f"{shown!r} is no URL: https://HOST/PATH is needed, percent-encoded where it is not ASCII")
    if "@" in parts.netloc:
        raise UsageError(f"{shown!r}: user and password do not belong in a URL; sign with webhook_secret_file")
    _check_scheme(parts.scheme, host, shown, private)
    _check_number(host, shown, private)
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(secure, host, port or (443 if secure else 80), target, private)


def _check_scheme(scheme: str, host: str, shown: str, private: bool) -> None:
    if scheme == "https":
        return
    if scheme == "http" and private and _is_loopback(host):
        return
    raise UsageError(f"{shown!r}: https is needed; http only to a loopback address, with out.webhook_private = true")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_number(host: str, shown: str, private: bool) -> None:
    """A host that is a number can be judged at once."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return
    if (why := blocked(found, private=private)) is not None:
        raise UsageError(f"{shown!r}: {why}")


def blocked(address: Address, *, private: bool) -> str | None:
    """Why an address is not connected to; None when it may be.

    Addresses that hold an IPv4 address (mapped, 6to4, Teredo, NAT64) are judged by that one too.
    """
    for one in _all(address):
        if one.is_multicast or one.is_unspecified or (one.is_reserved and not one.is_loopback):
            return f"{address} is no address of a host"
        if one.is_link_local:
            return f"{address} is link-local (where machines keep their metadata): never connected to"
        if not private and not one.is_global:
            return f"{address} is private: allow it with out.webhook_private = true"
    return None


def _all(address: Address) -> list[Address]:
    """The address and those inside of it."""
    out: list[Address] = []
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in ipaddress.IPv6Network("64:ff9b::/96"):
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        out = [a for a in inner if a is not None]
        if out:
            return out
    return [address]


def system_resolve(host: str, port: int) -> list[str]:
    """Addresses of a name as the system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def allowed_addresses(to: Destination, resolve: Resolve = system_resolve) -> list[str]:
    """Addresses to connect to, at this moment. One blocked address of the name blocks all of it.

    Raises
    ------
    OSError : the name has no address
    UsageError : the name leads somewhere it must not
    """
    found = resolve(to.host, to.port)
    if not found:
        raise OSError(f"{to.host} has no address")
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        if (why := blocked(address, private=to.private)) is not None:
            raise UsageError(f"{to.host}: {why}")
        if not to.secure and not address.is_loopback:
            raise UsageError(f"{to.host}: {address} is no loopback address, and http is for those only")
    return found
