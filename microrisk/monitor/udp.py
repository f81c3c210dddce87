"""Sockets of a MoldUDP64 line: a multicast group joined on one interface, or a unicast address."""

from __future__ import annotations

import ipaddress
import socket

from microrisk.errors import UsageError


def open_line(host: str, port: int, interface: str = "127.0.0.1") -> socket.socket:
    """A bound, non-blocking socket that hears the line.

    A group is bound by its own address, so that two groups on one port do not hear each other.

    Raises UsageError when the address cannot be had: the text says which and what would help.
    """
    try:
        address = ipaddress.ip_address(socket.gethostbyname(host))
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    except (OSError, ValueError) as why:
        raise UsageError(f"line {host}:{port} cannot be opened: {why}") from why
    try:
        if address.is_multicast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(address), port))
            group = socket.inet_aton(str(address)) + socket.inet_aton(interface)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        else:
            sock.bind((str(address), port))
        sock.setblocking(False)
    except OSError as why:
        sock.close()
        raise UsageError(
            f"line {host}:{port} cannot be opened on interface {interface}: {why.strerror or why}; is another process "
            "listening there, or is the interface's address another one?"
        ) from why
    return sock
