"""The routes for scripts and for the page: JSON of what the hub has, alerts as files, labels."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from microrisk.monitor.hub import Alert, Hub
from microrisk.monitor.web import hardware
from microrisk.monitor.web.auth import Identity, refused
from microrisk.monitor.web.shared import ENCODER
from microrisk.monitor.web.wire import pack_batch

ALERTS_A_PAGE = 1000
EXPORT_ROWS = 500
COLUMNS = (
    "schema", "id", "n", "ts_ns", "instrument", "feed", "session", "seq", "head", "level", "calibrated", "suspect",
    "bid", "ask", "drivers", "backend", "model", "label",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a label: whether the alert was right; null takes the label back."""

    value: bool | None


class Api:
    """The routes of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def routes(self) -> list[Route]:
        """For Starlette."""
        return [
            Route("/api/overview", self.overview),
            Route("/api/instruments", self.instruments),
            Route("/api/consolidated", self.consolidated),
            Route("/api/latency", self.latency),
            Route("/api/hardware", self.hardware),
            Route("/api/alerts", self.alerts),
            Route("/api/alerts.jsonl", self.alerts_jsonl),
            Route("/api/alerts.csv", self.alerts_csv),
            Route("/api/alerts/{id}/around", self.around),
            Route("/api/alerts/{id}/label", self.label, methods=["POST"]),
            Route("/metrics", self.metrics),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
        ]

    async def overview(self, request: Request) -> Response:
        """The state of everything."""
        return answer(self._hub.overview())

    async def instruments(self, request: Request) -> Response:
        """Busiest first; `?search=` keeps those whose name contains it."""
        wanted = request.query_params.get("search", "").upper()
        return answer([i for i in self._hub.instruments() if wanted in i.id.upper()])

    async def consolidated(self, request: Request) -> Response:
        """Symbols over their venues."""
        return answer(self._hub.consolidated())

    async def latency(self, request: Request) -> Response:
        """Stages and histograms."""
        return answer(self._hub.latency())

    async def hardware(self, request: Request) -> Response:
        """What the recorded reports say of the hardware."""
        return answer(await asyncio.to_thread(hardware.load))

    async def alerts(self, request: Request) -> Response:
        """Alerts with n above `?after=`, oldest first, at most `?limit=`."""
        try:
            after = number(request, "after", 0, most=1 << 62)
            limit = number(request, "limit", ALERTS_A_PAGE, most=ALERTS_A_PAGE)
        except ValueError as error:
            return refused(400, str(error))
        return answer({"alerts": self._hub.alerts(after, limit), "labels": self._hub.labels()})

    async def around(self, request: Request) -> Response:
        """Frames around an alert: JSON, or as the websocket sends them with `?binary=1`."""
        try:
            frames = await asyncio.to_thread(self._hub.around, request.path_params["id"])
        except KeyError:
            return refused(404, "what surrounded this alert is not kept")
        if request.query_params.get("binary") == "1":
            return Response(await asyncio.to_thread(pack_batch, frames, 0), media_type="application/octet-stream")
        return answer(frames)

    async def label(self, request: Request) -> Response:
        """Keep what a person says of an alert."""
        try:
            said = msgspec.json.decode(await request.body(), type=Label)
        except msgspec.MsgspecError as error:
            return refused(400, f'{error}; expected is {{"value": true}}, false or null')
        identity: Identity = request.scope["microrisk.identity"]
        try:
            await asyncio.to_thread(self._hub.label, request.path_params["id"], said.value, identity.role)
        except KeyError:
            return refused(404, "no alert of that id")
        return answer({"id": request.path_params["id"], "label": said.value})

    async def alerts_jsonl(self, request: Request) -> Response:
        """Every alert kept, one JSON object a line, with its label."""
        alerts, labels = await self._all()
        lines = (ENCODER.encode(msgspec.structs.asdict(a) | {"label": labels.get(a.id)}) + b"\n" for a in alerts)
        return download(lines, "alerts.jsonl", "application/x-ndjson")

    async def alerts_csv(self, request: Request) -> Response:
        """The same as a table; the three drivers in one cell."""
        alerts, labels = await self._all()
        return download(csv_lines(alerts, labels), "alerts.csv", "text/csv; charset=utf-8")

    async def metrics(self, request: Request) -> Response:
        """Prometheus exposition."""
        return Response(await asyncio.to_thread(self._hub.metrics), media_type="text/plain; version=0.0.4")

    async def healthz(self, request: Request) -> Response:
        """The process answers."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self, request: Request) -> Response:
        """200 when every feed is in sync; 503 with the state of each when not."""
        ready, feeds = self._hub.ready()
        return answer({"ready": ready, "feeds": feeds}, 200 if ready else 503)

    async def _all(self) -> tuple[list[Alert], dict[str, bool]]:
        return await asyncio.to_thread(self._hub.alerts, 0, 1 << 31), self._hub.labels()


def answer(value: Any, status: int = 200) -> Response:
    """JSON."""
    return Response(ENCODER.encode(value), status, media_type="application/json")


def number(request: Request, name: str, default: int, *, most: int) -> int:
    """A parameter of the address, 0 to `most`; ValueError in words."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise ValueError(f"{name}={text[:40]!r}: a whole number from 0 to {most}")
    return int(text)


def csv_lines(alerts: Iterable[Alert], labels: dict[str, bool]) -> Iterator[bytes]:
    """Lines of a CSV file, header first. Text that a spreadsheet would compute is marked as text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for alert in alerts:
        fields = msgspec.structs.asdict(alert)
        fields |= {"drivers": "; ".join(alert.drivers), "label": labels.get(alert.id, "")}
        writer.writerow([_cell(fields[c]) for c in COLUMNS])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def download(lines: Iterable[bytes], name: str, media_type: str) -> Response:
    """A file, in parts between which other requests have their turn."""

    async def parts() -> AsyncIterator[bytes]:
        part: list[bytes] = []
        for line in lines:
            part.append(line)
            if len(part) >= EXPORT_ROWS:
                yield b"".join(part)
                part.clear()
                await asyncio.sleep(0)
        yield b"".join(part)

    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(parts(), media_type=media_type, headers=headers)


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
