"""Deliveries: once each and in order, signed, bounded; and the places that are never connected to."""

import json
import socket
import ssl
import subprocess
import threading
import time

import pytest
from alerts_made import made, until
from receiver import Receiver

from microrisk.errors import UsageError
from microrisk.monitor.out.destination import allowed_addresses, check_url
from microrisk.monitor.out.webhook import Webhook, signature
from microrisk.monitor.secret import Secret


def hook(receiver, **options):
    return Webhook(receiver.url(), **({"private": True, "first_wait_s": 0.01, "seed": 1} | options))


def test_alerts_come_in_order_with_their_ids_as_keys():
    with Receiver() as receiver:
        out = hook(receiver)
        for n in range(1, 6):
            assert out.put(made(n))
        out.close()
    assert [json.loads(body)["n"] for _, _, body in receiver.got] == [1, 2, 3, 4, 5]
    path, headers, _ = receiver.got[0]
    assert (path, headers["Idempotency-Key"], headers["Microrisk-Schema"]) == ("/hook?x=1", made(1).id, "1")
    assert headers["Host"] == f"127.0.0.1:{receiver.server_port}"
    assert "Microrisk-Signature" not in headers
    assert (out.counts.delivered, out.counts.dropped, out.counts.failed, out.trouble) == (5, 0, 0, "")


def test_the_signature_covers_time_and_body():
    secret = Secret("hunter2", "test")
    with Receiver() as receiver:
        out = hook(receiver, secret=secret)
        out.put(made(1))
        out.close()
    _, headers, body = receiver.got[0]
    stamp, given = (part.partition("=")[2] for part in headers["Microrisk-Signature"].split(","))
    assert abs(int(stamp) - time.time()) < 60
    assert given == signature(secret, int(stamp), body)
    assert given != signature(secret, int(stamp) + 1, body)
    assert given != signature(secret, int(stamp), body + b" ")
    assert b"hunter2" not in body
    assert "hunter2" not in str(headers)


def test_the_signature_is_that_of_the_standard():
    """RFC 4231, test case 2, with the seconds and the point in front."""
    import hmac

    want = hmac.digest(b"Jefe", b"7.what do ya want for nothing?", "sha256").hex()
    assert signature(Secret("Jefe", "test"), 7, b"what do ya want for nothing?") == want


def test_failures_that_pass_are_tried_again_under_the_same_key():
    with Receiver(503, 429, 500) as receiver:
        out = hook(receiver)
        out.put(made(1))
        out.put(made(2))
        until(lambda: out.counts.delivered == 2)
        out.close()
    assert [h["Idempotency-Key"] for _, h, _ in receiver.got] == [made(1).id] * 4 + [made(2).id]
    assert len({body for _, _, body in receiver.got[:4]}) == 1
    assert (out.counts.retries, out.counts.failed) == (3, 0)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410])
def test_refusals_and_redirects_are_final(status):
    with Receiver() as elsewhere, Receiver(status) as receiver:
        receiver.headers = {"Location": elsewhere.url()}
        out = hook(receiver)
        out.put(made(1))
        out.put(made(2))
        until(lambda: out.counts.delivered == 1)
        out.close()
    assert (out.counts.failed, out.counts.retries) == (1, 0)
    assert elsewhere.got == []


def test_attempts_end():
    with Receiver(*[500] * 9) as receiver:
        out = hook(receiver, tries=3)
        out.put(made(1))
        until(lambda: out.counts.failed == 1)
        assert "answered 500" in out.trouble
        out.close()
    assert len(receiver.got) == 3


def test_retry_after_is_waited_for():
    with Receiver(429) as receiver:
        receiver.headers = {"Retry-After": "1"}
        out = hook(receiver)
        begin = time.monotonic()
        out.put(made(1))
        until(lambda: out.counts.delivered == 1)
        assert time.monotonic() - begin >= 1
        out.close()


def test_nobody_waits_for_a_receiver_that_hangs_and_the_queue_is_bounded():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        out = Webhook(url, private=True, queue=10, timeout_s=0.3, tries=2, first_wait_s=30)
        begin = time.monotonic()
        taken = [out.put(made(n)) for n in range(1000)]
        assert time.monotonic() - begin < 0.25
        assert sum(taken) == 10
        until(lambda: out.trouble)
        begin = time.monotonic()
        out.close(wait_s=0.1)
        assert time.monotonic() - begin < 3
    assert out.counts.dropped == 1000
    assert out.counts.delivered == 0


def test_a_server_that_answers_a_byte_at_a_time_is_cut_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip():
            peer, _ = server.accept()
            with peer:
                try:
                    while not stop.wait(0.05):
                        peer.sendall(b"H")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        out = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", private=True, timeout_s=0.4, tries=1)
        begin = time.monotonic()
        out.put(made(1))
        until(lambda: out.counts.failed == 1, 5)
        assert time.monotonic() - begin < 3
        stop.set()
        thread.join()
        out.close()


# -- where it may go ------------------------------------------------------------------------------------------

BLOCKED = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "64:ff9b::a00:1", "2002:a00:1::1", "192.0.2.1", "2001:db8::1",
]  # fmt: skip
"""Loopback, private, link-local, shared, unspecified, multicast, documentation, and IPv4 hidden in IPv6."""


@pytest.mark.parametrize("address", BLOCKED)
def test_addresses_that_are_blocked_as_numbers_and_behind_names(address):
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(UsageError):
        check_url(f"https://{host}/")
    to = check_url("https://example.org/")
    with pytest.raises(UsageError):
        allowed_addresses(to, lambda *_: [address])
    with pytest.raises(UsageError):
        allowed_addresses(to, lambda *_: ["93.184.216.34", address])


def test_public_addresses_are_allowed():
    to = check_url("https://example.org:8443/a?b=c")
    assert (to.host, to.port, to.target, to.authority) == ("example.org", 8443, "/a?b=c", "example.org:8443")
    for address in ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"):
        assert allowed_addresses(to, lambda *_, a=address: [a]) == [address]


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "224.0.0.1", "0.0.0.0"])
def test_some_addresses_are_blocked_even_where_private_ones_are_allowed(address):
    to = check_url("https://example.org/", private=True)
    with pytest.raises(UsageError):
        allowed_addresses(to, lambda *_: [address])


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/", "http://10.0.0.1/", "ftp://example.org/", "file:///etc/passwd", "https://",
        "example.org", "https://user:hunter2@example.org/", "https://example.org:0/", "https://example.org:99999/",
        "https://ex ample.org/",
        "https://example.org/\r\nX: y", "https://exämple.org/", "https://[::1/", "//example.org/",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url):
    for private in (False, True):
        with pytest.raises(UsageError) as error:
            check_url(url, private=private)
        assert "hunter2" not in str(error.value)


def test_http_only_to_loopback_and_only_when_allowed():
    assert not check_url("http://127.0.0.1:8000/", private=True).secure
    with pytest.raises(UsageError, match="https is needed"):
        check_url("http://127.0.0.1:8000/")
    to = check_url("http://localhost/", private=True)
    with pytest.raises(UsageError, match="no loopback"):
        allowed_addresses(to, lambda *_: ["93.184.216.34"])


def test_a_name_that_changes_its_answer_reaches_nothing():
    """DNS rebinding: public while it is checked, loopback when it is asked again."""
    with Receiver() as receiver:
        asked = []

        def resolve(host, port):
            asked.append(host)
            return ["127.0.0.1"]

        out = Webhook(f"https://example.org:{receiver.server_port}/", resolve=resolve, tries=3, first_wait_s=0.01)
        out.put(made(1))
        until(lambda: out.counts.failed == 1)
        assert "private" in out.trouble
        out.close()
    assert receiver.got == []
    assert asked == ["example.org"]


def test_the_connection_goes_to_the_checked_address_and_the_name_is_not_asked_again():
    with Receiver() as receiver:
        asked = []

        def resolve(host, port):
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["10.255.255.1"]

        out = Webhook(receiver.url("localhost"), private=True, resolve=resolve)
        out.put(made(1))
        until(lambda: out.counts.delivered == 1)
        out.close()
    assert asked == ["localhost"]


# -- TLS ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", cert, "-subj", "/CN=hook.example", "-addext", "subjectAltName=DNS:hook.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def tls_hook(receiver, host, cert):
    trust = ssl.create_default_context(cafile=cert) if cert else None
    return Webhook(
        receiver.url(host, "https"), private=True, context=trust, resolve=lambda *_: ["127.0.0.1"], tries=1, seed=1
    )


@pytest.mark.parametrize(
    ("host", "trusted", "works"),
    [("hook.example", True, True), ("hook.example", False, False), ("other.example", True, False)],
)
def test_the_certificate_must_be_trusted_and_for_the_name_in_the_url(certificate, host, trusted, works):
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Receiver(context=context) as receiver:
        out = tls_hook(receiver, host, cert if trusted else None)
        out.put(made(1))
        until(lambda: out.counts.delivered + out.counts.failed == 1)
        out.close()
    assert (out.counts.delivered == 1) is works
    assert len(receiver.got) == int(works)
    assert works or "certificate" in out.trouble.lower()
