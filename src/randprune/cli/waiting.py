"""Imported before torch: OpenMP's waiting threads sleep in commands, they do not spin.

On a busy machine that is several times faster (`randprune.evaluate.threads`). The library reads the
setting when it is loaded, with torch; worker processes inherit it.
"""

from __future__ import annotations

import os
import sys

if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
