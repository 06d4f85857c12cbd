"""``python -m lossgeom.cli``."""

import sys

from lossgeom.cli import main

if __name__ == "__main__":
    sys.exit(main())
