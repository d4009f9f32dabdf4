"""Runs every scenario and the parts, one after the other: `make bench`, some eight minutes.

With arguments it is `python -m bench.load` with these arguments.
"""

import sys

from bench import load, parts
from bench.scenario import SCENARIOS

if __name__ == "__main__":
    if len(sys.argv) > 1:
        load.main()
    else:
        parts.main([])
        load.main(list(SCENARIOS))
