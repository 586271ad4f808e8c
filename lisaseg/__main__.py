"""`python -m lisaseg` is the command `lisaseg`."""

import sys

from lisaseg.surfaces.cli import main

if __name__ == "__main__":
    sys.exit(main())
