"""The live path under ThreadSanitizer: a program of four threads, built for this test, must not report a race."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "tsan"
PACKETS = 40_000
FLAGS = "-O1"
"""Reports name lines well enough, and building takes a third of the time."""

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not here")


@pytest.fixture(scope="module")
def program() -> Path:
    """live_race, up to date; kept in build/tsan between runs."""
    options = ["-DMICRORISK_TSAN=ON", "-DCMAKE_BUILD_TYPE=RelWithDebInfo", f"-DCMAKE_CXX_FLAGS_RELWITHDEBINFO={FLAGS}"]
    jobs = f"-j{os.cpu_count() or 1}"
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(BUILD), *options],
        ["cmake", "--build", str(BUILD), "--target", "live_race", jobs],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return BUILD / "cpp" / "stress" / "live_race"


def run(program: Path, journal: Path, packets: int) -> subprocess.CompletedProcess[str]:
    """Without random addresses: the sanitizer's shadow memory does not fit all layouts of newer kernels."""
    still = ["setarch", os.uname().machine, "-R"]
    if shutil.which("setarch") is None or subprocess.run([*still, "true"], check=False, capture_output=True).returncode:
        still = []
    env = os.environ | {"TSAN_OPTIONS": "exitcode=66 halt_on_error=0"}
    command = [*still, str(program), str(journal), str(packets)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)


def test_readers_wakers_and_clocks_do_not_race_with_the_poller(program: Path, tmp_path: Path) -> None:
    done = run(program, tmp_path / "journal", PACKETS)
    assert "WARNING: ThreadSanitizer" not in done.stderr, done.stderr[:5000]
    assert done.returncode == 0, done.stdout + done.stderr
    words = done.stdout.split()
    counted = dict(zip((w.strip(",") for w in words[1::2]), map(int, words[::2]), strict=True))
    assert counted["messages"] > PACKETS * 19
    assert counted["wakes"] > 10
    assert counted["steps"] > 1
