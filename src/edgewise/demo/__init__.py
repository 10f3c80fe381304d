"""A small model and its images, so that a first run needs no data of one's own.

`README.md` beside this file tells where they come from and how they were made.
"""

from pathlib import Path


def demo_folder() -> Path:
    """Return the folder that holds `model.onnx`, `calibrate.npz` and `test.npz`.

    >>> sorted(file.name for file in demo_folder().glob("*.npz"))
    ['calibrate.npz', 'test.npz']
    """
    return Path(__file__).parent
