"""`python -m graphseg` is the command `graphseg`."""

import sys

from graphseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
