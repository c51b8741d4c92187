"""The demo is a folder of the repository, not an installed package: make it importable."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# Whoever starts the tests in the background may have it ignored, which programs inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
