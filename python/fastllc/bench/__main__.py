"""``python -m fastllc.bench``: the same as ``python -m fastllc bench``."""

import sys

from fastllc.bench.command import main

sys.exit(main(sys.argv[1:]))
