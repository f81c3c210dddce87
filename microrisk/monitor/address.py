"""Addresses of live sources: URLs (or the same keys in feeds.toml) as typed structs, and back without secrets.

    file:PATH?speed=1&format=itch50&date=2019-12-30
    moldudp64://GROUP:PORT?b=GROUP:PORT&request=HOST:PORT,HOST:PORT&glimpse=HOST:PORT&interface=127.0.0.1
    soupbintcp://HOST:PORT?user=U&session=S&password_file=PATH
    coinbase:BTC-USD,ETH-USD?url=ws://HOST:PORT&rest=http://HOST:PORT&channel=full

Every part may be percent-encoded; `&`, `?` and `%` in a value must be. A password in an address is refused: it would
end in the list of processes, in logs and in the journal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import Meta

from microrisk.errors import UsageError
from microrisk.monitor.keys import Endpoint, as_text, endpoint, keys_of, settle, shown, unknown
from microrisk.monitor.secret import redacted, variable_of

LONGEST = 8192
"""Characters of an address."""
MOST_PRODUCTS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_:.-]{0,63}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)

Name = Annotated[str, Meta(pattern="^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?\\Z", description="what the feed is called: letters, digits, '.', '_', '-'")]  # fmt: skip  # noqa: E501
VenueName = Annotated[str, Meta(pattern="^([A-Z0-9][A-Z0-9_-]{0,15})?\\Z", description="venue of its instruments (capitals); the scheme's own unless given")]  # fmt: skip  # noqa: E501
Silent = Annotated[int, Meta(ge=50, le=86_400_000, description="ms without a packet or message until the feed is stale")]  # fmt: skip  # noqa: E501
Connect = Annotated[float, Meta(gt=0, le=600, description="seconds that a connection may take")]
Session = Annotated[str, Meta(max_length=10, pattern="^[!-~]*\\Z", description="session asked for, at most 10 characters; empty = the current one")]  # fmt: skip  # noqa: E501
Day = Annotated[date | None, Meta(description="session date, YYYY-MM-DD, New York; today there unless given")]
User = Annotated[
    str, Meta(max_length=6, pattern="^[!-~]*\\Z", description="SoupBinTCP user name, at most 6 characters")
]
KeysFile = Annotated[str, Meta(max_length=4096, description="file of mode 0600 with the API key, one line KEY:SECRET:PASSPHRASE; or set the environment variable")]  # fmt: skip  # noqa: E501
PasswordFile = Annotated[str, Meta(max_length=4096, description="file of mode 0600 with the password; or set the environment variable")]  # fmt: skip  # noqa: E501
Web = Annotated[str, Meta(max_length=2048, description="ws:// or wss:// address instead of the venue's own")]
Rest = Annotated[str, Meta(max_length=2048, description="http:// or https:// address of snapshots instead of the venue's own")]  # fmt: skip  # noqa: E501


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A recording or a capture that is played."""

    name: Name = ""
    venue: VenueName = ""
    speed: Annotated[float, Meta(ge=0, le=1e6, description="times as fast as recorded; 0 = as fast as it goes")] = 1.0
    format: Annotated[str, Meta(max_length=32, pattern="^[a-z0-9]*\\Z", description="as for replay; recognised from content unless given")] = ""  # fmt: skip  # noqa: E501
    date: Day = None
    loop: Annotated[bool, Meta(description="begin again at the end: true or false")] = False


class MoldOptions(msgspec.Struct, frozen=True, kw_only=True):
    """MoldUDP64 over UDP: line A is the address itself."""

    name: Name = ""
    venue: VenueName = "XNAS"
    b: Annotated[Endpoint | None, Meta(description="GROUP:PORT of line B")] = None
    request: Annotated[tuple[Endpoint, ...], Meta(max_length=16, description="HOST:PORT of re-request servers, in turn")] = ()  # fmt: skip  # noqa: E501
    glimpse: Annotated[Endpoint | None, Meta(description="HOST:PORT of the snapshot server")] = None
    interface: Annotated[str, Meta(max_length=45, description="IP address of the interface that joins the groups")] = "127.0.0.1"  # fmt: skip  # noqa: E501
    session: Session = ""
    date: Day = None
    window: Annotated[int, Meta(ge=64, le=1 << 24, description="messages held while a hole is open")] = 65536
    wait_us: Annotated[int, Meta(ge=0, le=10_000_000, description="us that a hole is left to the other line before it is asked for")] = 1000  # fmt: skip  # noqa: E501
    recover_ms: Annotated[int, Meta(ge=1, le=600_000, description="ms of asking before a snapshot is taken, or the messages are given up")] = 2000  # fmt: skip  # noqa: E501
    silent_ms: Silent = 3000
    user: User = ""
    password_file: PasswordFile = ""


class SoupOptions(msgspec.Struct, frozen=True, kw_only=True):
    """SoupBinTCP: a numbered stream over TCP."""

    name: Name = ""
    venue: VenueName = "XNAS"
    user: User = ""
    password_file: PasswordFile = ""
    session: Session = ""
    date: Day = None
    silent_ms: Silent = 15_000
    connect_s: Connect = 5.0


class CoinbaseOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Coinbase Exchange."""

    name: Name = ""
    venue: VenueName = "COINBASE"
    url: Web = ""
    rest: Rest = ""
    password_file: KeysFile = ""
    channel: Annotated[Literal["full", "level2", "level2_batch"], Meta(description="full (every order), level2 or level2_batch (public)")] = "full"  # fmt: skip  # noqa: E501
    silent_ms: Silent = 10_000
    connect_s: Connect = 10.0


class KrakenOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Kraken, websocket v2."""

    name: Name = ""
    venue: VenueName = "KRAKEN"
    url: Web = ""
    depth: Annotated[Literal[10, 25, 100, 500, 1000], Meta(description="levels a side: 10, 25, 100, 500 or 1000")] = 10
    silent_ms: Silent = 10_000
    connect_s: Connect = 10.0


class BinanceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Binance spot, or futures when the address says so."""

    name: Name = ""
    venue: VenueName = "BINANCE"
    url: Web = ""
    rest: Rest = ""
    market: Annotated[Literal["spot", "usdm", "coinm"], Meta(description="spot, usdm or coinm")] = "spot"
    depth: Annotated[int, Meta(ge=5, le=5000, description="levels of the snapshot, 5..5000")] = 1000
    silent_ms: Silent = 10_000
    connect_s: Connect = 10.0


class BitstampOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bitstamp."""

    name: Name = ""
    venue: VenueName = "BITSTAMP"
    url: Web = ""
    rest: Rest = ""
    channel: Annotated[Literal["diff_order_book", "order_book", "live_orders", "detail_order_book"], Meta(description="diff_order_book, order_book, live_orders or detail_order_book")] = "diff_order_book"  # fmt: skip  # noqa: E501
    silent_ms: Silent = 30_000
    connect_s: Connect = 10.0


Options = FileOptions | MoldOptions | SoupOptions | CoinbaseOptions | KrakenOptions | BinanceOptions | BitstampOptions
OPTIONS: dict[str, type[msgspec.Struct]] = {
    "file": FileOptions,
    "moldudp64": MoldOptions,
    "soupbintcp": SoupOptions,
    "coinbase": CoinbaseOptions,
    "kraken": KrakenOptions,
    "binance": BinanceOptions,
    "bitstamp": BitstampOptions,
}
"""Scheme -> its options."""
WIRED = ("moldudp64", "soupbintcp")
"""Schemes whose target is `//HOST:PORT`."""
TARGETS = {"file": "path", "moldudp64": "address", "soupbintcp": "address"}
"""Key that gives the target in feeds.toml; `products` for every other scheme."""
_SECRETS = ("password", "secret", "token", "key", "api_key", "passwd", "pwd")


class SourceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A source: where its bytes come from and how they are to be read.

    Attributes
    ----------
    scheme : a key of OPTIONS
    name : of the feed, unique in a configuration; made from the target unless given
    path : of a recording ("file")
    endpoint : of line A or of the server (moldudp64, soupbintcp)
    products : the venue's own symbols (websocket venues)
    options : typed by scheme
    """

    scheme: str
    name: str
    path: str = ""
    endpoint: Endpoint | None = None
    products: tuple[str, ...] = ()
    options: Options

    @property
    def venue(self) -> str:
        """Venue of its instruments; "" = the recording says it."""
        return self.options.venue

    @property
    def host(self) -> str:
        """Host or group; "" without an endpoint."""
        return self.endpoint.host if self.endpoint else ""

    @property
    def port(self) -> int:
        """UDP or TCP port; 0 without an endpoint."""
        return self.endpoint.port if self.endpoint else 0

    @property
    def password_variable(self) -> str:
        """Environment variable that may hold its password."""
        return variable_of("feed", self.name, "password")

    @property
    def url(self) -> str:
        """The canonical address: options that differ from their defaults, in their order; no secret is in it."""
        given = [(k, getattr(self.options, k)) for k in keys_of(type(self.options)) if k != "name"]
        told = [(k, v) for k, v in given if v != keys_of(type(self.options))[k].default]
        if self.name != default_name(self.scheme, self.target):
            told.append(("name", self.name))
        query = "&".join(f"{k}={quote(as_text(v), safe='/:,@[]')}" for k, v in told)
        slashes = "//" if self.scheme in WIRED else ""
        return f"{self.scheme}:{slashes}{quote(self.target, safe='/:,@[]')}{'?' if query else ''}{query}"

    @property
    def target(self) -> str:
        """Path, `HOST:PORT` or symbols with commas."""
        return self.path or (str(self.endpoint) if self.endpoint else ",".join(self.products))

    def replace(self, given: Mapping[str, Any], *, text: bool = True) -> SourceSpec:
        """With other options; a `name` renames it. Raises UsageError as `parse` does."""
        options = settle(type(self.options), dict(given), self.name, text=text)
        return _made(self.scheme, self.target, msgspec.structs.asdict(self.options) | {"name": self.name} | options)


def parse(text: str) -> SourceSpec:
    """A source from its URL; a path of something that exists is one too.

    Raises
    ------
    UsageError : unknown scheme or option, a value that is none, a secret in the address
    """
    scheme, rest = _scheme(text)
    target, _, query = rest.partition("?")
    given = _query(query, scheme)
    if scheme in WIRED:
        target = _authority(target, scheme)
    return _made(scheme, unquote(target), settle(OPTIONS[scheme], given, scheme, text=True))


def from_keys(keys: Mapping[str, Any]) -> SourceSpec:
    """A source from a table of feeds.toml: `url` and options, or `kind`, its target, and options.

    The target is `path`, `address` ("HOST:PORT") or `products` (a list), as the kind wants it.

    Raises
    ------
    UsageError : as `parse`; neither url nor kind, or both
    """
    given = dict(keys)
    url, kind = given.pop("url", None) if "kind" not in given else None, given.pop("kind", None)
    if isinstance(url, str):
        spec = parse(url)
        return spec.replace(given, text=False) if given else spec
    if not isinstance(kind, str):
        raise UsageError(f"a feed needs `url`, or `kind` and its target; kinds: {', '.join(OPTIONS)}")
    if kind not in OPTIONS:
        raise UsageError(unknown("kind of feed", kind, OPTIONS))
    target = _target(kind, given)
    return _made(kind, target, settle(OPTIONS[kind], given, kind, text=False))


def allowed_keys(scheme: str) -> list[str]:
    """Keys of a table of feeds.toml of this kind."""
    return ["kind", TARGETS.get(scheme, "products"), *keys_of(OPTIONS[scheme])]


def unique(specs: Iterable[SourceSpec]) -> list[SourceSpec]:
    """The sources; those whose name was made for them get -2, -3, ... where it is taken.

    Raises
    ------
    UsageError : a name that was given twice
    """
    out: list[SourceSpec] = []
    taken: set[str] = set()
    for spec in specs:
        name, n = spec.name, 1
        if name in taken and name != default_name(spec.scheme, spec.target):
            raise UsageError(f"two feeds are called {name}: give one another name")
        while name in taken:
            n += 1
            name = f"{spec.name[:60]}-{n}"
        taken.add(name)
        out.append(spec if name == spec.name else msgspec.structs.replace(spec, name=name))
    return out


def default_name(scheme: str, target: str) -> str:
    """The name of a source that was given none."""
    if scheme in WIRED:
        return _slug(f"{'mold' if scheme == 'moldudp64' else 'soup'}-{target}")
    return _slug(Path(target).name) if scheme == "file" else scheme


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64] or "feed"


def _scheme(text: str) -> tuple[str, str]:
    """Scheme and rest of an address."""
    if len(text) > LONGEST or not text.isprintable() or not text:
        raise UsageError(f"an address of {len(text)} characters: 1 to {LONGEST} printable ones are allowed")
    found = _SCHEME.fullmatch(text)
    scheme = found[1].lower() if found else ""
    if found and scheme in OPTIONS:
        return scheme, found[2]
    if _exists(text):
        return "file", quote(text)
    if scheme in ("ws", "wss", "http", "https"):
        raise UsageError(f"{redacted(text)[:80]}: name the venue first, such as coinbase:BTC-USD?url={scheme}://...")
    raise UsageError(unknown(f"source {redacted(text)[:80]!r}: scheme", scheme or text.partition(":")[0], OPTIONS))


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _query(query: str, scheme: str) -> dict[str, Any]:
    """Options as text; a name may be given once."""
    given: dict[str, Any] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        name = unquote(name)
        _no_secret(name, scheme)
        if not equals:
            raise UsageError(f"{scheme}: option {shown(name)} has no value; write name=value")
        if name in given:
            raise UsageError(f"{scheme}: option {name} is given twice")
        given[name] = unquote(value)
    return given


def _no_secret(name: str, scheme: str) -> None:
    if name.lower() in _SECRETS:
        variable = variable_of("feed", "NAME", "password")
        raise UsageError(
            f"{scheme}: {name} does not belong in an address or in feeds.toml: set the environment variable "
            f"{variable}, or name a file of mode 0600 with password_file"
        )


def _authority(target: str, scheme: str) -> str:
    if not target.startswith("//"):
        raise UsageError(f"{scheme}:{shown(target)}: the address begins with {scheme}://HOST:PORT")
    place = target[2:].rstrip("/")
    if "@" in place:
        raise UsageError(f"{scheme}: user and password do not belong in an address: give user=, and password_file=")
    return place


def _target(kind: str, given: dict[str, Any]) -> str:
    """The target out of a table; takes it away from the options."""
    name = TARGETS.get(kind, "products")
    for other in {"path", "address", "products"} - {name}:
        if other in given:
            raise UsageError(f"{kind}: {other} is no key of this kind; its target is {name}")
    for key in given:
        _no_secret(key, kind)
    value = given.pop(name, None)
    if name == "products" and isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if not isinstance(value, str):
        raise UsageError(f"{kind}: {name} is missing or no text")
    return value


def _made(scheme: str, target: str, options: dict[str, Any]) -> SourceSpec:
    """The checked source."""
    made: Any = OPTIONS[scheme](**options)
    name = made.name or default_name(scheme, target)
    parts = {"options": msgspec.structs.replace(made, name=""), "scheme": scheme, "name": name}
    _check_options(made, scheme)
    if scheme == "file":
        return SourceSpec(path=_path(target), **parts)
    if scheme in WIRED:
        return SourceSpec(endpoint=_endpoint(target, scheme), **parts)
    return SourceSpec(products=_products(target, scheme), **parts)


def _path(target: str) -> str:
    if not target or "\0" in target or not target.isprintable():
        raise UsageError(f"file: {shown(target)} is no path")
    return target


def _endpoint(target: str, scheme: str) -> Endpoint:
    try:
        return endpoint(target)
    except ValueError as why:
        raise UsageError(f"{scheme}://{shown(target)}: {why}") from why


def _products(target: str, scheme: str) -> tuple[str, ...]:
    names = tuple(n.strip() for n in target.split(","))
    for name in names:
        if not _PRODUCT.fullmatch(name):
            raise UsageError(f"{scheme}: {shown(name)} is no symbol; write {scheme}:SYMBOL,SYMBOL")
    if len(set(names)) != len(names) or len(names) > MOST_PRODUCTS:
        raise UsageError(f"{scheme}: a symbol is given twice, or more than {MOST_PRODUCTS} are")
    return names


def _check_options(options: Any, scheme: str) -> None:
    """What types cannot say: schemes of the addresses in options, and that they hold no secret."""
    for name, schemes in (("url", ("ws", "wss")), ("rest", ("http", "https"))):
        value = getattr(options, name, "")
        if value:
            _check_web(value, f"{scheme}: {name}", schemes)
    if isinstance(options, MoldOptions):
        _check_interface(options.interface)
        if options.glimpse is None and (options.user or options.password_file):
            raise UsageError("moldudp64: user and password_file are for the snapshot server: give glimpse=HOST:PORT")


def _check_web(value: str, what: str, schemes: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and value.isprintable()
    except ValueError:
        usable = False
    if not usable or " " in value:
        raise UsageError(f"{what} = {shown(redacted(value))}: an address with {' or '.join(schemes)} is needed")
    if redacted(value) != value:
        raise UsageError(f"{what} = {shown(redacted(value))}: a secret does not belong in an address")


def _check_interface(text: str) -> None:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError as why:
        raise UsageError(f"moldudp64: interface = {shown(text)}: the IP address of an interface is needed") from why
