"""Folders of labelled images: preparation as torchvision's, and files that cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spu_ir.errors import SpuError
from spu_ir.perf.datasets import CALIBRATION, FakeDataset, open_dataset
from spu_ir.perf.images import ImageDataset, read_image
from spu_ir.perf.workloads import ModelInfo, Preprocessing, read_task

PLAIN = Preprocessing(resize=8, crop=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def info(side: int = 8, channels: int = 3) -> ModelInfo:
    _, resnet = read_task("resnet50-torch-fp32")
    (name,) = resnet.inputs
    given = Preprocessing(side, side, (0.0,) * channels, (1.0,) * channels)
    return replace(resnet, shapes={name: (1, channels, side, side)}, preprocessing=given)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, quality=95)
    return path


def colours(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_pixels_are_scaled_and_normalised_by_channel(tmp_path: Path) -> None:
    pixels = colours(8, 8)
    path = save(tmp_path / "a.png", pixels)
    found = read_image(path, replace(PLAIN, mean=(0.5, 0.25, 0.0), std=(0.5, 2.0, 4.0)))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    want = (pixels / 255 - [0.5, 0.25, 0.0]) / [0.5, 2.0, 4.0]
    np.testing.assert_allclose(found, want.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "resized"), [(20, 10, (32, 16)), (10, 25, (16, 40)), (11, 17, (16, 24))]
)
def test_the_shorter_side_is_resized_and_the_middle_kept(
    tmp_path: Path, height: int, width: int, resized: tuple[int, int]
) -> None:
    path = save(tmp_path / "a.png", colours(height, width))
    found = read_image(path, replace(PLAIN, resize=16, crop=8))
    # As torchvision: the longer side is rounded down, the crop starts at round((side - crop) / 2).
    image = Image.open(path).resize(resized[::-1], Image.Resampling.BILINEAR)
    top, left = (round((side - 8) / 2) for side in resized)
    want = np.asarray(image)[top : top + 8, left : left + 8] / 255
    np.testing.assert_allclose(found, want.transpose(2, 0, 1), atol=1e-6)


def test_a_crop_larger_than_the_image_is_black_around_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((4, 4, 3), 255, np.uint8))
    found = read_image(path, replace(PLAIN, resize=4, crop=8))
    assert found[:, 2:6, 2:6].min() == 1
    assert found.sum() == 3 * 16


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
def test_any_colours_of_jpeg_are_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.jpg", np.full((8, 8, 3), (200, 200, 200), np.uint8), mode)
    np.testing.assert_allclose(read_image(path, PLAIN), 200 / 255, atol=0.02)


def test_an_image_of_one_pixel_is_enlarged(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((1, 1, 3), 51, np.uint8))
    np.testing.assert_allclose(read_image(path, PLAIN), 0.2, atol=1e-6)


def test_grey_models_get_one_channel(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    found = read_image(path, Preprocessing(8, 8, (0.0,), (1.0,)))
    np.testing.assert_allclose(found[0], np.arange(64).reshape(8, 8) / 255, atol=1e-6)


def test_a_long_strip_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((1, 5000, 3), np.uint8))
    with pytest.raises(SpuError, match="5000 x 1 pixels are too long"):
        read_image(path, PLAIN)


def test_an_image_that_would_fill_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(tmp_path / "a.png", colours(8, 8))
    with pytest.raises(SpuError, match="decompression bomb"):
        read_image(path, PLAIN)


def folder(root: Path, files: dict[str, int]) -> Path:
    """An image of each label, all of one grey that tells which: 10 x the label."""
    for name, label in files.items():
        save(root / "ILSVRC2012_img_val" / name, np.full((8, 8, 3), 10 * label, np.uint8))
    lines = [f"{name} {label}" for name, label in files.items()]
    (root / "val_map.txt").write_text("\n".join(lines) + "\n")
    return root


def answers(batch: dict[str, np.ndarray], classes: int = 10) -> dict[str, np.ndarray]:
    """Logits of a network that reads the label off the grey."""
    label = np.round(batch["input_1.1"].mean((1, 2, 3)) * 25.5).astype(int)
    return {"scores": np.eye(classes, dtype=np.float32)[label]}


def test_top_1_counts_the_right_images(tmp_path: Path) -> None:
    root = folder(tmp_path, {f"{n}.png": n for n in range(7)})
    lines = (root / "val_map.txt").read_text().replace("6.png 6", "6.png 5")
    (root / "val_map.txt").write_text(lines)
    dataset = ImageDataset(info(), root)
    assert dataset.batches(4) == 2
    for index in range(2):
        batch = dataset.batch(index, 4)
        dataset.add(batch, answers(batch.feeds))
    assert dataset.accuracy() == {"Top-1": round(6 / 7, 5)}
    assert dataset.unreadable == []


def test_what_cannot_be_read_is_named_and_the_rest_counts(tmp_path: Path) -> None:
    root = folder(tmp_path, {f"{n}.jpg": n for n in range(6)})
    images = root / "ILSVRC2012_img_val"
    (images / "1.jpg").write_bytes((images / "1.jpg").read_bytes()[:150])
    (images / "2.jpg").write_text("no image at all")
    (images / "3.jpg").write_bytes(b"")
    dataset = ImageDataset(info(), root)
    for index in range(dataset.batches(2)):
        batch = dataset.batch(index, 2)
        assert len(batch.keys) == {0: 1, 1: 0, 2: 2}[index]
        if batch.keys:
            dataset.add(batch, answers(batch.feeds))
    assert dataset.accuracy() == {"Top-1": 1.0}
    assert [Path(text.split("'")[1]).name for text in dataset.unreadable] == [
        "1.jpg",
        "2.jpg",
        "3.jpg",
    ]
    dataset.batch(0, 6)
    assert len(dataset.unreadable) == 3  # named once
    assert len(dataset.calibration()) == CALIBRATION
    assert dataset.filled(8)["input_1.1"].shape == (8, 3, 8, 8)


def test_a_first_batch_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    root = folder(tmp_path, {f"{n}.png": n for n in range(6)})
    for number in range(4):
        (root / "ILSVRC2012_img_val" / f"{number}.png").write_text("no image")
    found = ImageDataset(info(), root).filled(4)["input_1.1"]
    want = [40 / 255, 50 / 255, 40 / 255, 50 / 255]
    np.testing.assert_allclose(found[:, 0, 0, 0], want, atol=1e-6)
    (root / "ILSVRC2012_img_val" / "4.png").write_text("no image")
    (root / "ILSVRC2012_img_val" / "5.png").write_text("no image")
    with pytest.raises(SpuError, match="no sample of OPEN_IMAGENET can be read"):
        ImageDataset(info(), root).filled(4)


def test_images_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    root = folder(tmp_path, {"0.png": 0, "1.png": 1})
    (root / "ILSVRC2012_img_val" / "0.png").unlink()
    assert ImageDataset(info(), root).batch(0, 4).keys == (0,)
    (root / "ILSVRC2012_img_val" / "1.png").unlink()
    with pytest.raises(SpuError, match="none of the images"):
        ImageDataset(info(), root)


@pytest.mark.parametrize("line", ["0.png", "0.png x", "0.png -1", " 3"])
def test_a_map_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    root = folder(tmp_path, {"0.png": 0})
    (root / "val_map.txt").write_text(f"0.png 0\n{line}\n")
    with pytest.raises(SpuError, match="line 2 is not `name label`"):
        ImageDataset(info(), root)


def test_a_model_of_another_size_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, {"0.png": 0})
    _, resnet = read_task("resnet50-torch-fp32")
    with pytest.raises(SpuError, match="takes no images as they are preprocessed"):
        ImageDataset(replace(resnet, preprocessing=PLAIN), root)


def test_the_data_set_is_looked_for_in_the_folder_and_below(tmp_path: Path) -> None:
    folder(tmp_path / "open_imagenet", {"0.png": 0})
    for place in (tmp_path, tmp_path / "open_imagenet"):
        assert isinstance(open_dataset(info(), place), ImageDataset)
    assert isinstance(open_dataset(info(), None), FakeDataset)
    with pytest.raises(SpuError, match=r"has no val_map\.txt; put open_imagenet there"):
        open_dataset(info(), tmp_path / "ILSVRC2012_img_val")
    with pytest.raises(SpuError, match="'open_video' is not known"):
        open_dataset(replace(info(), dataset="open_video"), tmp_path)
