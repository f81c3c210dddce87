"""Models by name: those in the package, those promoted into the user's registry, and folders anywhere.

The registry is a folder (platformdirs' user data, or MICRORISK_MODELS) with one model folder a name and a file
`current` that holds the name used when nobody asks for another.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from microrisk.errors import MicroriskError, ModelNotFound, UsageError
from microrisk.weights import CARD_FILE, MODEL_FILE, README_FILE, Weights

ENV = "MICRORISK_MODELS"
PACKAGED = Path(__file__).parent / "models"
DEFAULT = "default"
CURRENT = "current"
"""Pointer file in the registry: the name of the model in use."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ModelEntry:
    """One line of `models list`.

    Attributes
    ----------
    name, path : how it is asked for, and where it lies
    origin : "package" or "registry"
    current : used when no model is named
    problem : why it cannot be used, or None
    card : its card ({} when unreadable)
    """

    name: str
    path: Path
    origin: str
    current: bool
    problem: str | None
    card: dict[str, Any]


def registry_folder() -> Path:
    """Where promoted models lie; need not exist."""
    return Path(os.environ.get(ENV) or Path(platformdirs.user_data_dir("microrisk")) / "models")


def find(model: str | Path | None = None) -> Path:
    """Folder of a model.

    Parameters
    ----------
    model : a name (registry first, then package), a folder, or None for the current one, else the packaged default

    Raises
    ------
    ModelNotFound : nothing of that name; the text lists the names there are
    """
    if model is None:
        return find(current_name() or DEFAULT)
    text = str(model)
    if _NAME.fullmatch(text):
        for place in (registry_folder(), PACKAGED):
            if (place / text / CARD_FILE).is_file():
                return place / text
    folder = Path(model)
    if (folder / CARD_FILE).is_file() or (folder / MODEL_FILE).is_file():
        return folder
    raise ModelNotFound(f"no model {text!r}: it is no folder with {CARD_FILE}, and known names are {_known()}")


def load_model(model: str | Path | None = None) -> Weights:
    """`Weights.load(find(model))`."""
    return Weights.load(find(model))


def current_name() -> str | None:
    """The promoted model in use, or None when nothing was promoted. UsageError when the pointer file is no name."""
    file = registry_folder() / CURRENT
    if not file.is_file():
        return None
    return _checked(file.read_text(encoding="utf-8").strip(), f"the file {file} holds")


def list_models() -> list[ModelEntry]:
    """Every model of registry and package by name; a registry model hides a packaged one of the same name."""
    used = current_name() or DEFAULT
    found: dict[str, ModelEntry] = {}
    for origin, place in (("registry", registry_folder()), ("package", PACKAGED)):
        for folder in sorted(place.iterdir()) if place.is_dir() else []:
            if _NAME.fullmatch(folder.name) and (folder / CARD_FILE).is_file() and folder.name not in found:
                found[folder.name] = _entry(folder, origin, folder.name == used)
    return [found[n] for n in sorted(found)]


def show(model: str | Path | None = None) -> ModelEntry:
    """One model with its card; a folder outside the registry has origin "folder"."""
    path = find(model)
    origins = {registry_folder(): "registry", PACKAGED: "package"}
    origin = origins.get(path.parent, "folder")
    used = current_name() or DEFAULT
    return _entry(path, origin, origin != "folder" and path.name == used)


def promote(model: str | Path, name: str | None = None, *, replace: bool = False) -> Path:
    """Copy a model into the registry under `name` (default: its folder's) and make it the current one.

    The model is checked first, and the copy appears whole or not at all. Promoting what already lies in the registry
    under that name only moves the pointer. Returns the folder.

    Raises
    ------
    UsageError : a name that is none, or one already taken by another model without `replace`
    """
    source = find(model)
    target = registry_folder() / _checked(name or source.resolve().name, "promote was given")
    weights = Weights.load(source)
    if source.resolve() != target.resolve():
        if target.exists() and not replace:
            raise UsageError(f"the registry already has a model {target.name!r}; choose another name, or replace it")
        _copy(weights, source, target)
    _point(target.name)
    return target


def _checked(name: str, who: str) -> str:
    """The name, if it is one: no separators, no leading dot, so it cannot leave the registry."""
    if not _NAME.fullmatch(name) or name == CURRENT:
        raise UsageError(
            f"{who} {name!r}, which is no model name: letters, digits, '.', '_' and '-', at most 64, "
            f"a letter or digit first, and not {CURRENT!r}"
        )
    return name


def _entry(path: Path, origin: str, current: bool) -> ModelEntry:
    try:
        weights = Weights.load(path)
    except MicroriskError as e:
        return ModelEntry(path.name, path, origin, current, str(e), {})
    return ModelEntry(path.name, path, origin, current, None, weights.card)


def _copy(weights: Weights, source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".promote-") as scratch:
        made = weights.save(Path(scratch) / "model")
        for extra in source.iterdir():
            if extra.is_file() and extra.name not in (MODEL_FILE, CARD_FILE, README_FILE):
                shutil.copyfile(extra, made / extra.name)
        if target.exists():
            target.rename(Path(scratch) / "old")
        made.rename(target)


def _point(name: str) -> None:
    folder = registry_folder()
    fresh = folder / f".{CURRENT}.new"
    fresh.write_text(name + "\n", encoding="utf-8")
    fresh.replace(folder / CURRENT)


def _known() -> str:
    return ", ".join(e.name for e in list_models()) or "none yet"
