"""The scorer of streams: the C++ extension's integer heads (AVX2 where the processor has it)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from microrisk.spec.features import ALL_MASK
from microrisk.weights import Weights, mask_vector

if TYPE_CHECKING:
    from microrisk.core import Heads


class CpuScorer:
    """`_core.Heads` behind the Scorer protocol; `heads` is what Engine.watch takes."""

    name = "cpu"

    def __init__(self) -> None:
        self.heads: Heads | None = None
        self._keep: NDArray[np.int8] | None = None

    def unavailable(self) -> str | None:
        """Why the extension cannot be used, or None."""
        try:
            from microrisk.core import Heads  # noqa: F401
        except ImportError as e:
            return f"the compiled extension is missing ({e}); install the package with pip, which builds it"
        return None

    def load(self, weights: Weights, mask: int = ALL_MASK) -> None:
        """Check the model (WeightFileError) and hand it to C++."""
        from microrisk.core import Heads

        weights.validate()
        self.heads = Heads(weights.heads_tensors(), mask)
        self._keep = None if mask == ALL_MASK else -mask_vector(mask).astype(np.int8)

    def score(self, codes: NDArray[np.int8]) -> NDArray[np.int32]:
        """int8[n, N_FEATURES] -> int32[n, N_HEADS]; RuntimeError before load."""
        if self.heads is None:
            raise RuntimeError("score() before load()")
        # Heads relies on the normaliser, which leaves 0 in features outside the mask; codes from elsewhere may not
        rows = codes if self._keep is None else codes & self._keep
        out: NDArray[np.int32] = self.heads.score(np.ascontiguousarray(rows))
        return out
