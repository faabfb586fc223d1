"""
A model and a data set of one's own for `spu-perf`, with real accuracy: handwritten digits.

    python examples/digits/prepare.py FOLDER
    python -m spu_ir.sparsify FOLDER/digits.onnx --ratio 32 --keep node_linear_1 \\
        --method second-order --calibration FOLDER/calibration.npz -o FOLDER/pruned.onnx
    spu-perf --workload examples/digits/digits.json --model FOLDER/pruned.onnx --data FOLDER

Writes `FOLDER/digits.onnx` (a CNN that `python -m benchmarks.digits --fixture` trained at 16x),
images that it was trained on, to prune it further with, and, as ByteMLPerf keeps ImageNet, 719
images of 8 x 8 that it was not trained on, with their labels.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SOURCE = Path(__file__).parents[2] / "test" / "data"

STEP = 15
"""A pixel of 0 to 16 is 15 times that in a file, exactly; `std` in the model's JSON undoes it."""


def main(arguments: Sequence[str]) -> int:
    """Write the model and the images to the folder that is named."""
    if len(arguments) != 1:
        print("usage: python examples/digits/prepare.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    images = folder / "ILSVRC2012_img_val"
    images.mkdir(parents=True, exist_ok=True)
    model = gzip.decompress((SOURCE / "digits_cnn_16x.onnx.gz").read_bytes())
    (folder / "digits.onnx").write_bytes(model)
    lines: list[str] = []
    with np.load(SOURCE / "digits.npz") as file:
        np.savez(folder / "calibration.npz", x=file["calibration"].astype(np.float32) / 16)
        for number, (pixels, label) in enumerate(zip(file["images"], file["labels"], strict=True)):
            name = f"digit_{number:04}.png"
            Image.fromarray(STEP * pixels.reshape(8, 8)).save(images / name)
            lines.append(f"{name} {label}\n")
    (folder / "val_map.txt").write_text("".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
