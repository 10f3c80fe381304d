"""Import this before `tests`: a script finds its own folder by itself, but not the checkout that it is in."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
