"""``python -m bench.steps``."""

import sys

from bench.steps.command import main

sys.exit(main(sys.argv[1:]))
