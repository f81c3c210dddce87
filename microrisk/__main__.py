"""python -m microrisk."""

import sys

from microrisk.cli import main

if __name__ == "__main__":
    sys.exit(main())
