"""``python -m agent.cli``: the same as the console script ``overnight``."""

import sys

from agent.cli.entry import main

sys.exit(main())
