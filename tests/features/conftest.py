"""Makes the helpers of this folder (feature_views, feature_twin) importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
