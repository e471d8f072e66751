"""The command line: `graphseg build | inspect | plot | compare | train | evaluate | segment`.

Exit status: 0 all is done; 1 done, except for files that are listed; 2 wrong use; 3 it could not be done;
130 interrupted.
"""

from graphseg.cli.command import main

__all__ = ["main"]
