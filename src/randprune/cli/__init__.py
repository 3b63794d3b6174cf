"""The command `randprune`: thin over the Python API, for people at a terminal and for scripts.

Results go to standard output (one JSON document with `--json`), everything else to standard error.
Exit codes: 0 done, 1 unexpected, 2 to 9 by the kind of error (`randprune.errors`), 130 interrupted.
"""

import randprune.cli.waiting  # noqa: F401 - first, before torch
from randprune.cli.app import (
    main as main,
)
