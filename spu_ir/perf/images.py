"""
Folders of images with labels, as ByteMLPerf keeps ImageNet: `val_map.txt` has `name label` lines.

The images are in `ILSVRC2012_img_val/` beside it, or beside it themselves. They are prepared as by
torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize` of PIL images, as in ByteMLPerf;
`Preprocessing` has the sizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.extras import extra_module
from spu_ir.media.image_input import resized_to

from .datasets import CALIBRATION, Array, Batch, Dataset, Feeds, Outputs
from .workloads import ModelInfo, Preprocessing

FOLDERS = ("ILSVRC2012_img_val", ".")

LONGEST = 1 << 15
"""Pixels of an image's longer side once it is resized."""


class ImageDataset(Dataset):
    """Labelled images for a network with one input `[batch, channels, crop, crop]`, f32."""

    name = "OPEN_IMAGENET"
    MARK = "val_map.txt"

    def __init__(self, info: ModelInfo, folder: Path):
        super().__init__()
        self._input, shape = info.inputs[0], info.shapes[info.inputs[0]]
        self._preprocessing = info.preprocessing
        side, channels = info.preprocessing.crop, len(info.preprocessing.mean)
        if len(info.inputs) != 1 or shape != (1, channels, side, side):
            raise SpuError(
                f"the model {info.name!r} takes no images as they are preprocessed, "
                f"[1, {channels}, {side}, {side}]",
                remedy="give its model file the preprocess that it needs",
            )
        self._files, self._labels = _read_map(folder)
        self._right, self._seen = 0, 0
        self.about = f"{len(self._files)} images of {str(folder)!r}"

    def batches(self, size: int) -> int:
        return -(-len(self._files) // size)

    def batch(self, index: int, size: int) -> Batch:
        images: list[Array] = []
        keys: list[int] = []
        for key in range(index * size, min((index + 1) * size, len(self._files))):
            try:
                images.append(read_image(self._files[key], self._preprocessing))
                keys.append(key)
            except SpuError as error:
                if str(error) not in self.unreadable:
                    self.unreadable.append(str(error))
        return Batch({self._input: np.stack(images)} if images else {}, tuple(keys))

    def calibration(self) -> list[Feeds]:
        """The first readable images: they are measured too."""
        return [{self._input: image[None]} for image in self.filled(CALIBRATION)[self._input]]

    def add(self, batch: Batch, outputs: Outputs) -> None:
        scores = next(iter(outputs.values()))
        best = scores.reshape(len(scores), -1).argmax(1)
        self._right += int(np.sum(best == self._labels[list(batch.keys)]))
        self._seen += len(batch.keys)

    def accuracy(self) -> dict[str, float]:
        return {"Top-1": round(self._right / self._seen, 5)} if self._seen else {}


def read_image(path: Path, preprocessing: Preprocessing) -> Array:
    """
    An image file as f32 `[channels, crop, crop]`; of 3 channels in RGB, of 1 in grey.

    Raises SpuError, naming the file, for one that is no image or is damaged.
    """
    pillow = extra_module("PIL.Image", "reading of images", "perf")
    mode = {1: "L", 3: "RGB"}.get(len(preprocessing.mean))
    if mode is None:
        raise SpuError("images have 1 or 3 channels", remedy="give as many numbers in mean and std")
    try:
        with pillow.open(path) as image:
            pixels = _cropped(image.convert(mode), preprocessing, pillow)
    # Pillow's decoders raise these, and SyntaxError, for what a damaged file has.
    except (OSError, ValueError, SyntaxError, EOFError, pillow.DecompressionBombError) as error:
        raise SpuError(f"cannot read the image {str(path)!r}: {_cause(error)}") from None
    values = pixels.reshape(*pixels.shape[:2], -1).astype(np.float32) / np.float32(255)
    mean, std = (np.array(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    result: Array = np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1))
    return result


def _cropped(image: Any, preprocessing: Preprocessing, pillow: Any) -> Array:
    """u8 `[crop, crop, channels]`, or without channels; what the crop lacks is black."""
    width, height = image.size
    rows, columns = resized_to(preprocessing.resize, height, width)
    size, crop = (columns, rows), preprocessing.crop
    if max(size) > LONGEST:
        raise ValueError(f"{width} x {height} pixels are too long a strip")
    if size != image.size:
        image = image.resize(size, pillow.Resampling.BILINEAR)
    left, top = (round((side - crop) / 2) for side in size)
    cropped: Array = np.asarray(image.crop((left, top, left + crop, top + crop)))
    return cropped


def _cause(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return "it is no image" if type(error).__name__ == "UnidentifiedImageError" else text


def _read_map(folder: Path) -> tuple[list[Path], Array]:
    """The files that are there of those that the map lists, and their labels, i64."""
    path = folder / ImageDataset.MARK
    files: list[Path] = []
    labels: list[int] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpuError(f"cannot read {str(path)!r}: {error}") from None
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(" ")
        name = name.strip()
        if not line.strip():
            continue
        if not name or not label.isdecimal() or not label.isascii():
            raise SpuError(f"{str(path)!r} line {number} is not `name label`")
        found = next((p for root in FOLDERS if (p := folder / root / name).is_file()), None)
        if found is not None:
            files.append(found)
            labels.append(int(label))
    if not files:
        raise SpuError(
            f"none of the images that {str(path)!r} lists is there",
            remedy=f"put them in {str(folder / FOLDERS[0])!r}",
        )
    return files, np.array(labels, np.int64)
