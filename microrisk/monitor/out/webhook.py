"""Alerts to a web address: one POST an alert, in order, from a thread of its own; nobody waits for it.

The body is the alert as JSON. Headers: `Idempotency-Key` is the alert's id, the same at every attempt and after every
restart; with a secret, `Microrisk-Signature: t=SECONDS,v1=HEX`, HMAC-SHA-256 over `SECONDS.BODY`. Redirects are not
followed: they could lead anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import random
import socket
import ssl
import threading
import time
from collections import deque

import msgspec

from microrisk.errors import UsageError
from microrisk.monitor.hub import SCHEMA, Alert
from microrisk.monitor.out.destination import Resolve, allowed_addresses, check_url, system_resolve
from microrisk.monitor.secret import Secret

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
LARGEST_ANSWER = 1 << 16
"""Bytes of an answer that are read."""
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same alert is sent again."""


class WebhookCounts(msgspec.Struct):
    """Totals. dropped: the queue was full; failed: given up; retries: attempts behind the first."""

    delivered: int = 0
    dropped: int = 0
    failed: int = 0
    retries: int = 0


class Webhook:
    """Deliveries to one address.

    Parameters
    ----------
    url, private : as `check_url`
    secret : signs what is sent
    timeout_s : of one attempt, from resolving the name to the end of the answer
    queue : alerts that wait at most; more are counted as dropped
    tries : attempts for one alert
    resolve, context, seed : of tests: names, TLS, the jitter of waiting times

    Attributes
    ----------
    counts, trouble : totals; why the last attempt failed ("" after one that worked)
    """

    def __init__(
        self,
        url: str,
        *,
        private: bool = False,
        secret: Secret | None = None,
        timeout_s: float = 5.0,
        queue: int = 1000,
        tries: int = 6,
        first_wait_s: float = FIRST_WAIT_S,
        resolve: Resolve = system_resolve,
        context: ssl.SSLContext | None = None,
        seed: int | None = None,
    ) -> None:
        self.to = check_url(url, private=private)
        self.counts, self.trouble = WebhookCounts(), ""
        self._secret, self._timeout_s, self._tries, self._first_wait_s = secret, timeout_s, tries, first_wait_s
        self._resolve, self._context = resolve, context
        self._random = random.Random(seed)
        self._queue: deque[Alert] = deque()
        self._room = queue
        self._filled = threading.Condition()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> bool:
        """Let an alert be delivered; returns at once. False: the queue is full, it was dropped and counted."""
        with self._filled:
            if self._ending.is_set() or len(self._queue) >= self._room:
                self.counts.dropped += 1
                return False
            self._queue.append(alert)
            self._filled.notify()
        return True

    @property
    def waiting(self) -> int:
        """Alerts that are not delivered yet."""
        return len(self._queue)

    def close(self, wait_s: float = 5.0) -> None:
        """End after the queue is empty or `wait_s` has passed; what is left is counted as dropped."""
        end = time.monotonic() + wait_s
        with self._filled:
            self._filled.wait_for(lambda: not self._queue, max(end - time.monotonic(), 0))
            self._ending.set()
            self._filled.notify_all()
        self._thread.join(timeout=self._timeout_s + 1)
        with self._filled:
            self.counts.dropped += len(self._queue)
            self._queue.clear()

    # -- thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._filled:
                self._filled.wait_for(lambda: self._queue or self._ending.is_set())
                if self._ending.is_set():
                    return
                alert = self._queue[0]
            settled = self._deliver(alert)
            with self._filled:
                if settled and self._queue and self._queue[0] is alert:
                    self._queue.popleft()
                self._filled.notify_all()

    def _deliver(self, alert: Alert) -> bool:
        """All attempts for one alert; False when the end came first."""
        body = msgspec.json.encode(alert)
        for attempt in range(self._tries):
            if attempt:
                self.counts.retries += 1
            again, wait_s = self._attempt(alert.id, body, attempt)
            if not self.trouble:
                self.counts.delivered += 1
                return True
            if not again:
                break
            if attempt + 1 < self._tries and self._ending.wait(wait_s):
                return False
        self.counts.failed += 1
        return True

    def _attempt(self, key: str, body: bytes, attempt: int) -> tuple[bool, float]:
        """One request; whether another may help, and after how many seconds. Sets `trouble`."""
        wait_s = min(self._first_wait_s * 2**attempt, LONGEST_WAIT_S) * self._random.uniform(0.5, 1.0)
        try:
            status, asked_s = self._post(key, body)
        except UsageError as why:
            self.trouble = str(why)
            return False, wait_s
        except (OSError, http.client.HTTPException, ValueError) as why:
            self.trouble = f"{self.to.host}: {why or type(why).__name__}"
            return True, wait_s
        self.trouble = "" if 200 <= status < 300 else f"{self.to.host} answered {status}"
        return status in AGAIN, max(wait_s, min(asked_s, LONGEST_WAIT_S))

    def _post(self, key: str, body: bytes) -> tuple[int, float]:
        """Status of the answer, and the seconds that its Retry-After asks for."""
        deadline = time.monotonic() + self._timeout_s
        connection = self._connected(deadline)
        # per read, a timeout is no limit for a server that sends a byte a second: the socket is closed under it
        guard = threading.Timer(max(deadline - time.monotonic(), 0), _cut, (connection.sock,))
        guard.daemon = True
        guard.start()
        try:
            connection.request("POST", self.to.target, body, self._headers(key, body))
            answer = connection.getresponse()
            answer.read(LARGEST_ANSWER)
            return answer.status, _seconds(answer.headers.get("Retry-After", ""))
        finally:
            guard.cancel()
            connection.close()

    def _connected(self, deadline: float) -> http.client.HTTPConnection:
        """A connection to the first address that answers, each of them checked before."""
        failure: OSError | None = None
        for address in allowed_addresses(self.to, self._resolve):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            try:
                return self._connect(address, left)
            except OSError as why:
                failure = why
        raise failure or OSError("no address")

    def _connect(self, address: str, left_s: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.to.host, self.to.port, timeout=left_s)
        plain = socket.create_connection((address, self.to.port), left_s)
        connection.sock = self._secured(plain) if self.to.secure else plain
        return connection

    def _secured(self, plain: socket.socket) -> ssl.SSLSocket:
        """TLS for the name in the URL, whatever address it led to."""
        self._context = self._context or ssl.create_default_context()
        try:
            return self._context.wrap_socket(plain, server_hostname=self.to.host)
        except BaseException:
            plain.close()
            raise

    def _headers(self, key: str, body: bytes) -> dict[str, str]:
        headers = {
            "Host": self.to.authority,
            "Content-Type": "application/json",
            "User-Agent": "microrisk",
            "Idempotency-Key": key,
            "Microrisk-Schema": str(SCHEMA),
            "Connection": "close",
        }
        if self._secret is not None:
            now_s = int(time.time())
            headers["Microrisk-Signature"] = f"t={now_s},v1={signature(self._secret, now_s, body)}"
        return headers


def signature(secret: Secret, now_s: int, body: bytes) -> str:
    """HMAC-SHA-256 over `SECONDS.BODY`, hexadecimal; a receiver refuses old seconds and compares in constant time."""
    return hmac.new(secret.reveal().encode(), b"%d." % now_s + body, hashlib.sha256).hexdigest()


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0.0


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # not the method of a TLS socket, which takes its state away from the thread that reads
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
