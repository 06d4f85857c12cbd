"""``python -m lossgeom``."""

import sys

from lossgeom.cli import main

if __name__ == "__main__":
    sys.exit(main())
