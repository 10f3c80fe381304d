"""Compares two sentence encoders on the test sentences and prints one JSON line.

    python embed.py DATA --model M --reference R       (in the judge's environment)

Every different sentence once, at its own length, batch 1. `mean_cosine` and `min_cosine` are
between the two models' vectors of a sentence; `neighbour_differs` is the share of sentences
whose nearest other sentence is another one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

from samples import samples


def embed(path: Path, data: Path) -> np.ndarray:
    """Compute the unit vectors of the different test sentences, [sentences, width]."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in session.get_inputs()]
    feeds = {feed[names[0]].tobytes(): feed for feed in samples(data / "test.npz", names)}
    out = []
    for feed in feeds.values():
        vector = session.run(None, feed)[0][0]
        if vector.ndim == 2:  # a graph that stops at the token vectors: no padding here
            vector = vector.mean(0)
        out.append(vector / np.linalg.norm(vector))
    return np.stack(out)


def neighbours(vectors: np.ndarray) -> np.ndarray:
    """Find each sentence's nearest other sentence, by index."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    nearest: np.ndarray = similarity.argmax(1)
    return nearest


def main() -> None:
    """Embed with both and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    args = parser.parse_args()
    mine, theirs = embed(args.model, args.data), embed(args.reference, args.data)
    cosine = (mine * theirs).sum(1)
    result = {
        "mean_cosine": round(float(cosine.mean()), 6),
        "min_cosine": round(float(cosine.min()), 6),
        "neighbour_differs": round(float((neighbours(mine) != neighbours(theirs)).mean()), 6),
        "sentences": len(mine),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
