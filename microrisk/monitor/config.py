"""The effective configuration: defaults, then feeds.toml, the environment, flags; and where each value is from.

Environment: MICRORISK_SECTION__KEY, and MICRORISK_FEED__NAME__KEY for a feed. Flags: `--set SECTION.KEY=VALUE`. A key
that does not exist is refused wherever it stands. Secrets come only from the environment or a file of mode 0600.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from microrisk.errors import UsageError
from microrisk.monitor import address
from microrisk.monitor.address import SourceSpec
from microrisk.monitor.keys import as_text, is_loopback, keys_of, shown, unknown
from microrisk.monitor.secret import HIDDEN, Secret, find_secret, redacted, variable_of
from microrisk.monitor.settings import SECRETS, SECTIONS, LatencySettings, MonitorSettings, OutSettings
from microrisk.monitor.tomlfile import TomlFile, read_toml

VERSION = 1
"""Of the file; `config_version` in it."""
MOST_FEEDS = 1024
MOST_PROBLEMS = 20
CONFIG_VARIABLE = "MICRORISK_CONFIG"
"""Environment variable that names the file when `--config` does not."""
_VARIABLE = re.compile(r"MICRORISK_([A-Z0-9]+(?:_[A-Z0-9]+)*)__([A-Z0-9_]+)")
_TOP = ("config_version", *SECTIONS, "feed")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor runs with.

    Attributes
    ----------
    feeds : number of a feed = its place
    origins : "section.key" or "feed.NAME.key" -> default, FILE:LINE, environment VARIABLE, or flag
    token, viewer_token, webhook_secret : None = not given
    passwords : by name of the feed
    """

    monitor: MonitorSettings
    out: OutSettings
    latency: LatencySettings
    feeds: tuple[SourceSpec, ...]
    origins: dict[str, str]
    file: str
    token: Secret | None
    viewer_token: Secret | None
    webhook_secret: Secret | None
    passwords: dict[str, Secret]

    def describe(self) -> dict[str, Any]:
        """Plain values without secrets: {"file", "version", "values": {key: {value, origin}}, "feeds"}."""
        values = {f"{s}.{k}": getattr(getattr(self, s), k) for s in SECTIONS for k in keys_of(SECTIONS[s])}
        told = {key: {"value": _shown(value), "origin": self.origins[key]} for key, value in values.items()}
        for section, key in SECRETS:
            told[f"{section}.{key}"] = {"value": HIDDEN if getattr(self, key) else "", "origin": self._secret(key)}
        return {"file": self.file, "version": VERSION, "values": told, "feeds": [self._feed(f) for f in self.feeds]}

    def _secret(self, name: str) -> str:
        found = getattr(self, name)
        return found.origin if found else "default"

    def _feed(self, spec: SourceSpec) -> dict[str, Any]:
        mine = f"feed.{spec.name}."
        origins = {k.removeprefix(mine): v for k, v in self.origins.items() if k.startswith(mine)}
        return {"name": spec.name, "kind": spec.scheme, "venue": spec.venue, "url": spec.url, "origins": origins}


def load(
    file: Path | None = None,
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> Config:
    """The effective configuration.

    Parameters
    ----------
    file : feeds.toml; None = the one that MICRORISK_CONFIG names, if any
    flags : "section.key" (or "feed.NAME.key") -> text
    sources : addresses from the command line, behind the feeds of the file

    Raises
    ------
    UsageError : anything that cannot be meant; the text has a line for each problem, with its place and the remedy
    """
    given = environ.get(CONFIG_VARIABLE, "")
    path = file or (Path(given) if given else None)
    return _Loading(read_toml(path) if path else TomlFile("", ""), environ, flags or {}, sources).config()


def parse_sets(pairs: Sequence[str]) -> dict[str, str]:
    """`SECTION.KEY=VALUE` of `--set`, as `load` takes them. Raises UsageError for other forms and for repetitions."""
    out: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or "." not in key:
            raise UsageError(f"--set {shown(redacted(pair))}: write SECTION.KEY=VALUE, such as monitor.port=9000")
        if key in out:
            raise UsageError(f"--set {key} is given twice")
        out[key] = value
    return out


class _Loading:
    """One reading; problems are gathered, so that a person sees all of them at once."""

    def __init__(
        self, file: TomlFile, environ: Mapping[str, str], flags: Mapping[str, str], sources: Sequence[str]
    ) -> None:
        self.file, self.environ, self.flags, self.sources = file, environ, dict(flags), sources
        self.problems: list[str] = []
        self.origins: dict[str, str] = {}
        self.variables = {v: k for v, k in map(_split, environ) if k is not None}

    def config(self) -> Config:
        self._check_top()
        sections: dict[str, Any] = {name: self._section(name) for name in SECTIONS}
        feeds = self._feeds()
        self._check_rest()
        self._stop()
        secrets: dict[str, Any] = {key: self._secret(section, key, sections[section]) for section, key in SECRETS}
        passwords = {f.name: s for f in feeds if (s := self._password(f)) is not None}
        self._check_web(sections["monitor"], secrets)
        self._check_webhook(sections["out"])
        self._stop()
        return Config(
            **sections, **secrets, feeds=feeds, origins=self.origins, file=self.file.name, passwords=passwords
        )

    def _stop(self) -> None:
        """Raise what was found so far."""
        if self.problems:
            more = len(self.problems) - MOST_PROBLEMS
            lines = self.problems[:MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
            raise UsageError("\n".join(lines))

    # -- the file as a whole ----------------------------------------------------------------------------------

    def _check_top(self) -> None:
        """Version first: a file from the future is not read on."""
        version = self.file.data.get("config_version", VERSION)
        if type(version) is not int or not 1 <= version <= VERSION:
            place = self.file.where("config_version")
            raise UsageError(
                f"{place}: config_version = {shown(version)}: this program reads versions 1..{VERSION}; "
                "update it, or write the file for this version"
            )
        for name in self.file.data:
            if name not in _TOP:
                self.problems.append(f"{self.file.where(name)}: {unknown('section', name, _TOP)}")

    # -- sections ---------------------------------------------------------------------------------------------

    def _section(self, name: str) -> Any:
        keys, values = keys_of(SECTIONS[name]), {}
        for place, origin, key, value, text in self._given(name):
            if key in keys:
                try:
                    values[key] = keys[key].convert(value, text=text)
                except ValueError as why:
                    self.problems.append(f"{place}: {keys[key].refusal(f'{name}.{key}', value, why)}")
                self.origins[f"{name}.{key}"] = origin
            elif (name, key) in SECRETS:
                self.problems.append(f"{place}: {self._only_secret(name, key)}")
            else:
                self.problems.append(f"{place}: {unknown(f'key of [{name}]', key, keys)}")
        for key in keys:
            self.origins.setdefault(f"{name}.{key}", "default")
        return SECTIONS[name](**values)

    def _given(self, name: str) -> Iterator[tuple[str, str, str, Any, bool]]:
        """Place for messages, origin, key, value, whether it is text: file, then environment, then flags."""
        table = self.file.data.get(name, {})
        if not isinstance(table, dict):
            self.problems.append(f"{self.file.where(name)}: {name} is a table: write [{name}]")
            table = {}
        for key, value in table.items():
            place = self.file.where(name, key)
            yield place, place, key, value, False
        for variable, (section, key) in self.variables.items():
            if section == name and (name, key) not in SECRETS:
                yield variable, f"environment {variable}", key, self.environ[variable], True
        for flag in [f for f in self.flags if f.startswith(name + ".")]:
            yield f"--set {flag}", "flag", flag[len(name) + 1 :], self.flags.pop(flag), True

    def _only_secret(self, section: str, key: str) -> str:
        return (
            f"{section}.{key} is a secret: set the environment variable {variable_of(section, key)}, or name a file of "
            f"mode 0600 with {section}.{SECRETS[section, key]}"
        )

    def _check_rest(self) -> None:
        """Variables and flags that no section took."""
        known = (*SECTIONS, "feed")
        for variable, (section, _) in self.variables.items():
            if section not in known:
                self.problems.append(f"{variable}: {unknown('section', section, known)}")
        for flag in self.flags:
            self.problems.append(f"--set {flag}: {unknown('section', flag.partition('.')[0], known)}")

    # -- feeds ------------------------------------------------------------------------------------------------

    def _feeds(self) -> tuple[SourceSpec, ...]:
        tables = self.file.data.get("feed", [])
        if not isinstance(tables, list) or len(tables) > MOST_FEEDS:
            self.problems.append(f"{self.file.where('feed')}: feeds are written as [[feed]], at most {MOST_FEEDS}")
            return ()
        found = [(self._feed(i, table), f"feed.{i}") for i, table in enumerate(tables)]
        found += [(self._parsed(text), "flag") for text in self.sources]
        made = [(spec, origin) for spec, origin in found if spec is not None]
        try:
            specs = address.unique(spec for spec, _ in made)
        except UsageError as why:
            self.problems.append(str(why))
            return ()
        for spec, (_, origin) in zip(specs, made, strict=True):
            self._note_origins(spec, origin)
        return tuple(self._overridden(specs))

    def _feed(self, i: int, table: Any) -> SourceSpec | None:
        place = self.file.where("feed", i)
        if not isinstance(table, dict):
            self.problems.append(f"{place}: a feed is a table: write [[feed]]")
            return None
        try:
            return address.from_keys(table)
        except UsageError as why:
            self.problems.append(f"{self.file.where('feed', i, _key_of(str(why), table))}: {why}")
            return None

    def _parsed(self, text: str) -> SourceSpec | None:
        try:
            return address.parse(text)
        except UsageError as why:
            self.problems.append(str(why))
            return None

    def _note_origins(self, spec: SourceSpec, origin: str) -> None:
        for key in address.allowed_keys(spec.scheme):
            self.origins[f"feed.{spec.name}.{key}"] = "default"
        if origin == "flag":
            self.origins[f"feed.{spec.name}.url"] = "flag"
            return
        i = int(origin.partition(".")[2])
        for key in self.file.data["feed"][i]:
            self.origins[f"feed.{spec.name}.{key}"] = self.file.where("feed", i, key)

    def _overridden(self, specs: Sequence[SourceSpec]) -> Iterator[SourceSpec]:
        """With what environment and flags say of each feed."""
        by_variable = {variable_of("feed", s.name).removeprefix("MICRORISK_FEED__").lower(): s.name for s in specs}
        changes: dict[str, dict[str, tuple[str, str]]] = {s.name: {} for s in specs}
        for variable, (section, rest) in self.variables.items():
            feed, _, key = rest.rpartition("__")
            if section == "feed" and not (key == "password" and feed in by_variable):
                self._change(changes, by_variable.get(feed), key, variable, f"environment {variable}",
                             self.environ[variable])  # fmt: skip
        for flag in [f for f in self.flags if f.startswith("feed.")]:
            feed, _, key = flag[5:].rpartition(".")
            self._change(changes, feed if feed in changes else None, key, f"--set {flag}", "flag", self.flags.pop(flag))
        for spec in specs:
            yield self._changed(spec, changes[spec.name])

    def _change(
        self,
        changes: dict[str, dict[str, tuple[str, str]]],
        name: str | None,
        key: str,
        place: str,
        origin: str,
        value: str,
    ) -> None:
        if name is None:
            self.problems.append(f"{place}: there is no feed of that name; feeds: {', '.join(changes) or 'none'}")
        elif key in ("name", "kind"):
            self.problems.append(f"{place}: {key} of a feed is decided in its table")
        else:
            changes[name][key] = (value, place)
            self.origins[f"feed.{name}.{key}"] = origin

    def _changed(self, spec: SourceSpec, changes: dict[str, tuple[str, str]]) -> SourceSpec:
        for key, (value, place) in changes.items():
            try:
                spec = spec.replace({key: value})
            except UsageError as why:
                self.problems.append(f"{place}: {why}")
        return spec

    # -- secrets and what concerns several keys ---------------------------------------------------------------

    def _secret(self, section: str, key: str, settings: Any) -> Secret | None:
        return self._found(variable_of(section, key), getattr(settings, SECRETS[section, key]))

    def _password(self, spec: SourceSpec) -> Secret | None:
        return self._found(spec.password_variable, getattr(spec.options, "password_file", ""))

    def _found(self, variable: str, file: str) -> Secret | None:
        try:
            return find_secret(variable, file, self.environ)
        except UsageError as why:
            self.problems.append(str(why))
            return None

    def _check_web(self, settings: MonitorSettings, secrets: Mapping[str, Secret | None]) -> None:
        if not is_loopback(settings.host) and secrets["token"] is None:
            self.problems.append(
                f"{self.origins['monitor.host']}: monitor.host = {settings.host!r} is reachable from other machines: "
                f"set {variable_of('monitor', 'token')} or monitor.token_file, or keep 127.0.0.1"
            )
        if bool(settings.tls_cert) != bool(settings.tls_key):
            self.problems.append("monitor.tls_cert and monitor.tls_key belong together: give both, or none")
        token, viewer = secrets["token"], secrets["viewer_token"]
        if token is not None and viewer is not None and token.same(viewer.reveal()):
            self.problems.append("monitor.token and monitor.viewer_token are the same: a viewer could change things")

    def _check_webhook(self, out: OutSettings) -> None:
        if not out.webhook:
            return
        from microrisk.monitor.out.destination import check_url

        try:
            check_url(out.webhook, private=out.webhook_private)
        except UsageError as why:
            self.problems.append(f"{self.origins['out.webhook']}: out.webhook: {why}")


def _key_of(problem: str, table: Mapping[str, Any]) -> str:
    """The key of a feed's table that a sentence is about."""
    about = (k for k in table if re.search(rf": (option )?'?{re.escape(k)}'?( = | is | does )", problem))
    return next(about, "url" if "url" in table else "kind")


def _split(variable: str) -> tuple[str, tuple[str, str] | None]:
    """Section and key of an environment variable, None when it is none of ours."""
    found = _VARIABLE.fullmatch(variable)
    return variable, (found[1].lower(), found[2].lower()) if found else None


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, tuple):
        return [_shown(v) for v in value]
    return value if isinstance(value, bool | int | float) else as_text(value)
