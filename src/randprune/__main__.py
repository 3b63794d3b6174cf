"""`python -m randprune` is the command `randprune`."""

import sys

from randprune.cli import main

if __name__ == "__main__":
    sys.exit(main())
