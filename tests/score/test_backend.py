"""Scorers by name: what runs, what does not and why, and that looking does not import torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from microrisk.errors import BackendUnavailable
from microrisk.score import backend
from microrisk.score.reference_scorer import ReferenceScorer


class Broken(ReferenceScorer):
    def unavailable(self):
        return "the board is not plugged in"


@pytest.fixture
def offered(monkeypatch):
    """Replace what the entry points offer: {name: class}."""

    def offer(**classes):
        monkeypatch.setattr(backend, "_names", lambda: list(classes))
        monkeypatch.setattr(backend, "_find", lambda n: (f"test:{n}", classes.get(n)))

    return offer


def test_listing_names_reasons():
    found = {s.name: s for s in backend.list_scorers()}
    assert set(found) >= {"reference", "cpu", "cuda", "rtl"}
    assert found["reference"].unavailable is None
    assert all(s.unavailable is None or len(s.unavailable) > 5 for s in found.values())


def test_every_offered_scorer_keeps_the_protocol():
    for info in backend.list_scorers():
        if info.unavailable is None:
            assert isinstance(backend.open_scorer(info.name), backend.Scorer)


def test_unknown_name():
    with pytest.raises(BackendUnavailable, match=r"no scorer has the name 'tpu'; these would work: .*reference"):
        backend.open_scorer("tpu")


def test_missing_one_says_why_and_what_else(offered):
    offered(fpga=Broken, reference=ReferenceScorer)
    with pytest.raises(
        BackendUnavailable, match=r"'fpga' cannot run here: the board is not plugged in; .*: reference$"
    ):
        backend.open_scorer("fpga")


def test_import_error_is_a_reason(offered):
    def missing():
        raise ImportError("No module named 'cocotb'")

    offered(rtl=missing, reference=ReferenceScorer)
    with pytest.raises(BackendUnavailable, match="cannot be imported: No module named 'cocotb'"):
        backend.open_scorer("rtl")


def test_auto_prefers_cpu_for_streams_and_cuda_for_batches(offered):
    class Cpu(ReferenceScorer):
        name = "cpu"

    class Cuda(ReferenceScorer):
        name = "cuda"

    offered(cpu=Cpu, cuda=Cuda, rtl=ReferenceScorer, reference=ReferenceScorer)
    assert backend.open_scorer().name == "cpu"
    assert backend.open_scorer("auto", batch=backend.CUDA_BATCH).name == "cuda"
    assert backend.open_scorer("auto", batch=backend.CUDA_BATCH - 1).name == "cpu"


def test_auto_never_takes_hardware(offered):
    offered(rtl=ReferenceScorer, fpga=ReferenceScorer)
    with pytest.raises(BackendUnavailable, match=r"no back end runs here: cpu: .*; reference: "):
        backend.open_scorer("auto")


def test_failover_order(offered):
    offered(fpga=Broken, rtl=Broken, cuda=Broken, cpu=Broken, reference=ReferenceScorer)
    for failed in ("fpga", "rtl", "cuda", "cpu", "somebody's"):
        assert isinstance(backend.failover(failed), ReferenceScorer)
    with pytest.raises(BackendUnavailable, match="'reference' failed and none of the others"):
        backend.failover("reference")


def test_scoring_on_the_cpu_imports_no_torch():
    code = (
        "import sys\n"
        "from microrisk.score import alert, backend, drivers, registry\n"
        "backend.open_scorer('reference'); backend.open_scorer()\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
