"""``python -m fastllc``."""

import sys

from fastllc.cli import main

sys.exit(main())
