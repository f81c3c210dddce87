"""fetch: one public sample into a folder, proved, under its own name; the next command to run with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from microrisk.errors import ChecksumError, FetchError, OutputError
from microrisk.pipeline.fetching.download import Download, Limits, Part, Tell, locked, patiently
from microrisk.pipeline.fetching.proof import Digests, Expected, damage, digests_of, parse_sums
from microrisk.pipeline.fetching.wanted import Choice, Wanted, find_wanted
from microrisk.pipeline.fetching.web import AbsentError, Client, require_permitted
from microrisk.spec.samples import NASDAQ_DAYS, SAMPLES

OWN = "the checksums inside the file"


@dataclass(frozen=True)
class Fetched:
    """What a fetch did.

    Attributes
    ----------
    file : path of the sample
    url : where it came from
    bytes, sha256 : of the file; 0 and "" in a dry run
    proved_by : the published sum that it agrees with, or OWN
    already : it was there before
    resumed_from : bytes of an earlier attempt that were used
    retries : connections that failed
    seconds : in all
    terms : of the source
    notices : what was unusual
    next : commands to go on with
    """

    file: str
    url: str
    bytes: int
    sha256: str
    proved_by: str
    already: bool
    resumed_from: int
    retries: int
    seconds: float
    terms: str
    notices: list[str]
    next: list[str]
    dry_run: bool = False
    tried: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def fetch(
    sample: str,
    words: Sequence[str],
    out: str | Path = ".",
    *,
    choice: Choice | None = None,
    base_url: str | None = None,
    limits: Limits | None = None,
    dry_run: bool = False,
    tell: Tell | None = None,
) -> Fetched:
    """Get a sample into the folder `out`, which is made when it is missing.

    A file that is there already is compared with the published sum (or unpacked against its own), and left alone.

    Raises
    ------
    UsageError : words that cannot be meant, a base URL that is neither https nor this machine
    FetchError : not there, refused, or broken off too often (the same command goes on later)
    ChecksumError : the bytes are not the published ones; they are kept as `<name>.bad`
    OutputError : the file cannot be written, or there is no room for it
    """
    patience = limits or Limits()
    if base_url is not None:
        require_permitted(base_url)
    client = Client(patience.timeout)
    wanted = find_wanted(
        sample, words, choice or Choice(), base_url, lambda url: str(patiently(patience, lambda: client.text(url)))
    )
    if dry_run:
        return _planned(wanted, Path(out))
    return _Fetch(client, wanted, Path(out), patience, tell).run()


class _Fetch:
    """One run over the places where the file may lie."""

    def __init__(self, client: Client, wanted: Wanted, folder: Path, limits: Limits, tell: Tell | None) -> None:
        self._client, self._wanted, self._folder = client, wanted, folder
        self._limits, self._tell = limits, tell
        self._start = time.perf_counter()
        self._notices: list[str] = []

    def run(self) -> Fetched:
        """The first place that has the file."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self._folder}: {error.strerror or error}") from error
        absent: list[str] = []
        for url, name in self._wanted.urls:
            part = Part(self._folder / name)
            try:
                with locked(part):
                    return self._from(url, part)
            except AbsentError as why:
                absent.append(str(why))
        days = f"; days that were seen there: {', '.join(NASDAQ_DAYS)}" if self._wanted.sample.name == "nasdaq" else ""
        raise FetchError(f"not found: {'; '.join(absent)}{days}")

    def _from(self, url: str, part: Part) -> Fetched:
        target = part.target
        if target.exists():
            return self._there(url, target)
        got = Download(self._client, url, part, self._wanted.sample.starts, self._limits, self._tell)
        got.run()
        # asked for behind the file: a place without the file needs no sum, and md5 and sha256 are both at hand
        expected = self._published(url, target.name) or got.published
        self._notices += got.notices
        proof = self._prove(url, part, got.digests, expected)
        part.finish()
        return self._fetched(url, target, got.digests, proof, resumed=got.resumed_from, retries=got.patience.total)

    def _published(self, url: str, name: str) -> Expected | None:
        algorithm = self._wanted.sample.algorithm
        for place in self._wanted.sums(url, name):
            try:
                text = patiently(self._limits, partial(self._client.text, place, 64 << 10))
            except AbsentError:
                continue
            except FetchError as why:
                self._notices.append(f"no checksum file: {why}")
                continue
            if (found := parse_sums(text, algorithm, name, place)) is not None:
                return found
        return None

    def _prove(self, url: str, part: Part, digests: Digests, expected: Expected | None) -> str:
        """What proves the part; ChecksumError, and `<name>.bad`, when something speaks against it."""
        size = self._wanted.size
        if size is not None and size != digests.at:
            raise ChecksumError(f"{url}: {digests.at:,} bytes, the index says {size:,}; kept as {part.reject()}")
        if expected is None:
            self._notices.append(f"no sum is published for it: {OWN} were compared")
            if (found := damage(part.path)) is not None:
                raise ChecksumError(f"{url}: {found}; kept as {part.reject()}")
            return OWN
        value = digests.value(expected.algorithm)
        if value != expected.value:
            said = f"{expected.algorithm} is {value}, {expected.source} says {expected.value}"
            raise ChecksumError(f"{url}: {said}; kept as {part.reject()}")
        return f"{expected.algorithm} of {expected.source}"

    def _there(self, url: str, target: Path) -> Fetched:
        """A file of that name is there: it stays, whatever it is."""
        digests, expected = digests_of(target), self._published(url, target.name)
        proof = OWN
        if expected is not None:
            value = digests.value(expected.algorithm)
            proof = f"{expected.algorithm} of {expected.source}"
            if value != expected.value:
                said = f"its {expected.algorithm} is {value}, {expected.source} says {expected.value}"
                raise ChecksumError(f"{target} is there, but {said}: move it away to fetch it again")
        elif (found := damage(target)) is not None:
            raise ChecksumError(f"{target} is there, but damaged ({found}): move it away to fetch it again")
        elif self._wanted.size not in (None, digests.at):
            said = f"has {digests.at:,} bytes, the index says {self._wanted.size:,}"
            raise ChecksumError(f"{target} is there, but {said}: move it away to fetch it again")
        return self._fetched(url, target, digests, proof, already=True)

    def _fetched(
        self, url: str, target: Path, digests: Digests, proof: str, *, already: bool = False, resumed: int = 0,
        retries: int = 0,
    ) -> Fetched:  # fmt: skip
        return Fetched(
            file=str(target),
            url=url,
            bytes=digests.at,
            sha256=digests.value("sha256"),
            proved_by=proof,
            already=already,
            resumed_from=resumed,
            retries=retries,
            seconds=round(time.perf_counter() - self._start, 3),
            terms=self._wanted.sample.terms,
            notices=self._notices,
            next=_next(self._wanted, target),
        )


def _planned(wanted: Wanted, folder: Path) -> Fetched:
    url, name = wanted.urls[0]
    notices = [f"{wanted.size:,} bytes, says the index"] if wanted.size else [f"size: {wanted.sample.size}"]
    target = folder / name
    return Fetched(
        file=str(target),
        url=url,
        bytes=0,
        sha256="",
        proved_by="",
        already=target.exists(),
        resumed_from=0,
        retries=0,
        seconds=0.0,
        terms=wanted.sample.terms,
        notices=notices,
        next=_next(wanted, target),
        dry_run=True,
        tried=[place for place, _ in wanted.urls],
    )


def _next(wanted: Wanted, target: Path) -> list[str]:
    if not wanted.readable:
        return [f"unzip -l {target}"] if target.suffix == ".zip" else []
    return [f"microrisk replay {target} --bbo bbo.parquet", f"microrisk bench --input {target}"]


def listed() -> list[dict[str, Any]]:
    """What there is to fetch, as plain types."""
    names = ("name", "what", "usage", "example", "size", "terms", "algorithm")
    out = [{name: getattr(s, name) for name in names} | {"host": s.hosts[0]} for s in SAMPLES.values()]
    out[0]["days"] = dict(NASDAQ_DAYS)
    return out
