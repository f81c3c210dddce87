"""The application: page, websocket, routes, and in front of all of them the door."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from microrisk.monitor.hub import Hub
from microrisk.monitor.web.api import Api
from microrisk.monitor.web.assets import Assets
from microrisk.monitor.web.auth import Door, Guarded
from microrisk.monitor.web.live import Live, Sockets
from microrisk.monitor.web.shared import Shared


def create_app(
    hub: Hub,
    *,
    token: str,
    viewer_token: str | None = None,
    allowed_hosts: Iterable[str],
    secure: bool = False,
    sockets: Sockets | None = None,
) -> Starlette:
    """The monitor's web application.

    Parameters
    ----------
    token, viewer_token : what opens it; the second one reads only
    allowed_hosts : `host:port` as browsers write it, or origins of proxies in front; anything else is refused
    secure : the server speaks TLS itself
    sockets : how many websockets may be open, and how many a session
    """
    assets, live = Assets(), Live(hub, Shared(hub), sockets)
    routes = [
        Route("/", assets.page),
        Route("/favicon.ico", assets.favicon),
        Route("/static/{path:path}", assets.file),
        *Api(hub).routes(),
        WebSocketRoute("/ws", live.endpoint),
    ]
    door = Door(token, viewer_token, allowed_hosts=allowed_hosts, secure=secure)
    app = Starlette(routes=routes, middleware=[Middleware(Guarded, door=door)])
    app.state.sockets = live.sockets
    return app
