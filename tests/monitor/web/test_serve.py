"""Binding, stopping, TLS."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from microrisk.errors import UsageError
from microrisk.monitor.keys import is_loopback
from microrisk.monitor.web.serve import open_server
from tests.monitor.web.conftest import TOKEN, serving
from tests.monitor.web.fake_hub import FakeHub


def test_the_address_is_known_before_it_runs_and_has_the_token_once() -> None:
    server, address = open_server(FakeHub(history_s=0), port=0)
    assert address.startswith(f"{server.url}?token=")
    assert len(address.partition("token=")[2]) >= 43
    assert not server.url.endswith(":0/")
    server.close()


def test_every_start_has_its_own_token() -> None:
    addresses = set()
    for _ in range(2):
        server, address = open_server(FakeHub(history_s=0), port=0)
        addresses.add(address.partition("token=")[2])
        server.close()
    assert len(addresses) == 2


def test_stop_before_run_and_signals_are_left_alone() -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]

    before, seen = handlers(), []
    server, _ = open_server(FakeHub(history_s=0), port=0)
    threading.Timer(0.2, server.stop).start()
    threading.Timer(0.1, lambda: seen.append(handlers())).start()
    server.run()  # in the main thread, where uvicorn would take the signals
    assert seen == [before]
    again, _ = open_server(FakeHub(history_s=0), port=int(server.url.rstrip("/").rpartition(":")[2]))
    again.stop()
    again.run()


def test_stopping_does_not_wait_for_idle_connections() -> None:
    with serving(FakeHub(history_s=0)) as running:
        idle = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(3)]
        assert running.get("/healthz").status_code == 200
        began = time.monotonic()
        running.server.stop()
    assert time.monotonic() - began < 8
    for sock in idle:
        sock.close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate: apt-get install openssl")
def test_tls_marks_the_cookie_and_wants_https_origins(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]  # type: ignore[list-item]
    subprocess.run(command, check=True, capture_output=True)
    with serving(FakeHub(history_s=0), tls_cert=cert, tls_key=key) as running:
        assert running.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(cert))
        response = httpx.get(running.address, verify=trusted)
        assert response.status_code == 303
        assert "secure" in response.headers["set-cookie"].lower()
        own = {"authorization": f"Bearer {TOKEN}"}
        host = running.url.removeprefix("https://").rstrip("/")
        for scheme, status in (("http", 403), ("https", 200)):
            origin = {"origin": f"{scheme}://{host}"}
            assert httpx.get(running.url, headers=own | origin, verify=trusted).status_code == status
    with pytest.raises(UsageError, match="TLS certificate"):
        open_server(FakeHub(history_s=0), port=0, tls_cert=key, tls_key=key)


def test_what_only_this_machine_reaches() -> None:
    assert [h for h in ("127.0.0.1", "127.9.9.9", "::1", "localhost") if not is_loopback(h)] == []
    assert [h for h in ("0.0.0.0", "10.0.0.1", "::", "example.org", "192.168.0.1") if is_loopback(h)] == []
