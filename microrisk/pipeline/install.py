"""doctor: what is installed, what runs here, and why the rest does not."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy", "numba", "llvmlite", "polars", "pyarrow", "msgspec", "cyclopts", "rich", "structlog", "platformdirs",
    "safetensors", "databento-dbn", "hdrhistogram", "torch", "scikit-learn",
)  # fmt: skip
OPTIONAL = {"torch": "training and the cuda back end: pip install 'microrisk[model]'", "scikit-learn": "harness rows"}


def doctor() -> dict[str, Any]:
    """Facts about this installation, plain types only; `problems` is empty when everything needed is in order."""
    extension, models = _extension(), _models()
    packages = {name: _version(name) for name in PACKAGES}
    missing = [f"{name} is not installed" for name, v in packages.items() if v is None and name not in OPTIONAL]
    problems = missing + [p for p in (extension["problem"], models["problem"]) if p]
    return {
        "version": _version("microrisk"),
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": packages,
        "optional": {k: v for k, v in OPTIONAL.items() if packages[k] is None},
        "extension": extension,
        "format_hash": _format_hash(),
        "scorers": _scorers(),
        "numba_cache": _numba_cache(),
        "models": models,
        "recordings": os.environ.get("MICRORISK_DATA"),
        "problems": problems,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extension() -> dict[str, Any]:
    """File and record hash of the compiled part, beside the hash that the Python side expects."""
    from microrisk.spec.hashes import abi_hash

    out: dict[str, Any] = {"file": None, "abi_hash": None, "expected": abi_hash(), "problem": None}
    try:
        from microrisk import _core
    except ImportError as error:
        return out | {"problem": f"the compiled extension cannot be loaded ({error}): run pip install ."}
    out |= {"file": _core.__file__, "abi_hash": _core.ABI_HASH}
    if out["expected"] != _core.ABI_HASH:
        out["problem"] = f"the extension was built for records {_core.ABI_HASH}, not {out['expected']}: build it again"
    return out


def _format_hash() -> str:
    from microrisk.spec.hashes import format_hash

    return format_hash()


def _scorers() -> list[dict[str, Any]]:
    """Every back end; `unavailable` is None or the reason. Where torch is installed this imports it."""
    from microrisk.score.backend import list_scorers

    return [{"name": s.name, "source": s.source, "unavailable": s.unavailable} for s in list_scorers()]


def _models() -> dict[str, Any]:
    """Where the registry lies, and what is in it and in the package."""
    from microrisk.errors import MicroriskError
    from microrisk.score.registry import list_models, registry_folder

    out: dict[str, Any] = {"registry": str(registry_folder()), "found": [], "problem": None}
    try:
        entries = list_models()
    except MicroriskError as error:
        return out | {"problem": str(error)}
    out["found"] = [{"name": e.name, "path": str(e.path), "current": e.current, "problem": e.problem} for e in entries]
    if not any(e.current and e.problem is None for e in entries):
        out["problem"] = "no usable model: the package's default is missing, and none was promoted"
    return out


def _numba_cache() -> dict[str, Any]:
    """Where compiled kernels are kept between runs, how many there are, and whether more can be written."""
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).resolve().parents[1])
    files = sum(1 for _ in folder.rglob("*.nbc")) if folder.is_dir() else 0
    return {"folder": str(folder), "compiled": files, "writable": os.access(folder, os.W_OK)}
