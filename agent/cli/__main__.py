"""``python -m agent.cli``: the same as the console script ``overnight``."""

import sys

from agent.cli import main

sys.exit(main())
