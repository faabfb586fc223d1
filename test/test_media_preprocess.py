"""Images of any size as a model's input: what the program makes of them, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

import spu_ir
from spu_ir.api import lower
from spu_ir.dialects.vpu_image import MAX_ROW
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.media import ImageInput
from spu_ir.runtime.build import DEVICE, build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel
from spu_ir.tools.image_options import parse_images
from spu_ir.tools.spu_compile import main as spu_compile
from spu_ir.tools.spu_opt import main as spu_opt
from spu_ir.tools.spu_run import main as spu_run
from spu_ir.zoo import ResNetConfig, published

Array = NDArray[Any]

NETWORK = replace(
    published("resnet50"), config=ResNetConfig(blocks=(1, 1), width=16, image=32, classes=10)
)
SIZES = ((60, 80), (37, 37), (100, 41), (1, 1), (9, 90))
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(seed: int, height: int, width: int, channels: int = 3) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def batch(channels: int = 3) -> list[Array]:
    return [noise(seed, *size, channels) for seed, size in enumerate(SIZES)]


def identity(*dims: int | str) -> onnx.ModelProto:
    """A model that gives its image back, so that outputs are what a network would see."""
    shape = ",".join(map(str, dims))
    text = f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Identity(x) }}"
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')


def expected(images: ImageInput, image: Array) -> Array:
    """One image `[H, W, C]` resized by Pillow, cut and normalised by numpy, channels last."""
    height, width = images.target(*image.shape[:2])
    planes = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
    how = RESAMPLING[images.interpolation]
    small = np.stack(
        [
            np.asarray(plane.resize((width, plane.height), how).resize((width, height), how))
            for plane in planes
        ],
        -1,
    )
    top, left = round((height - images.height) / 2), round((width - images.width) / 2)
    cut = small[top : top + images.height, left : left + images.width]
    if images.colour == "bgr":
        cut = cut[..., ::-1]
    mean, std = (np.array(each, np.float32) for each in (images.mean, images.std))
    return (cut.astype(np.float32) / np.float32(images.divide) - mean) / std


# ---- the program


CASES: dict[str, tuple[tuple[int | str, ...], ImageInput]] = {
    "imagenet": (("n", 3, 32, 32), ImageInput(size=32, resize=36)),
    "bgr": (
        ("n", 32, 24, 3),
        ImageInput(
            size=(32, 24), resize=33, colour="bgr", layout="NHWC", interpolation="bicubic",
            mean=(103.5, 116.25, 123.0), std=(1, 2, 4), divide=1,
        ),
    ),
    "grey": (
        ("n", 1, 28, 28),
        ImageInput(size=28, crop="none", resize=None, colour="grey", mean=(0.5,), std=(0.25,)),
    ),
    "fixed": ((5, 3, 20, 40), ImageInput(size=(20, 40), crop="none", resize=None)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_a_network_sees_is_pillows_and_numpys_at_every_level(case: str) -> None:
    dims, images = CASES[case]
    images = replace(images, input="x")
    shapes = {"n": (1, 8)} if "n" in dims else {}
    program, job = lower(identity(*dims), precision="fp32", shapes=shapes, preprocess=images)
    arrays = batch(images.channels)
    feeds = images.feeds(arrays)
    want = np.stack([expected(images, array) for array in arrays])
    if dims[1] == images.channels:
        want = want.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(interpret(job.module, job.ctx, feeds)["y"], want)
    # The kernels are compared at every level in test_media_kernel.py; here it is what calls them.
    levels = host_levels() if case == "bgr" else host_levels()[-1:]
    for level, library in build(program.source, levels).items():
        model = CompiledModel.from_program(program, {level: library}, device="none")
        np.testing.assert_array_equal(model.run(feeds)["y"], want, err_msg=level)


def test_without_antialias_is_half_pixel_bilinear() -> None:
    """As ONNX's and PyTorch's Resize, but for the rounding to bytes between the axes."""
    images = ImageInput(size=16, resize=None, crop="none", antialias=False, input="x", mean=(0.0,),
                        std=(1.0,), divide=1.0, colour="grey")  # fmt: skip
    program, job = lower(identity(1, 1, 16, 16), precision="fp32", shapes={}, preprocess=images)
    image = noise(3, 64, 40, 1)
    got = interpret(job.module, job.ctx, images.feeds([image]))["y"][0, 0]
    rows, columns = ((np.arange(16) + 0.5) * extent / 16 - 0.5 for extent in (64, 40))
    plane = image[..., 0].astype(np.float64)
    narrow = np.stack([np.interp(columns, np.arange(40), row) for row in plane])
    exact = np.stack([np.interp(rows, np.arange(64), column) for column in narrow.T]).T
    assert np.abs(got - exact).max() <= 1.0
    assert program.inputs[0].dtype == "uint8"


@pytest.mark.parametrize(
    "precision", ["fp32", "bf16", pytest.param("int8", marks=pytest.mark.slow)]
)
def test_a_network_gives_the_bits_that_it_gives_for_arrays(precision: Any) -> None:
    images = ImageInput(size=32, resize=36, input="input_1.1")
    arrays = batch()
    feeds = images.feeds(arrays)
    plain = np.stack([expected(images, array) for array in arrays]).transpose(0, 3, 1, 2)
    plain = np.ascontiguousarray(plain)
    common: dict[str, Any] = {"precision": precision, "shapes": {"batch": (1, 8)}}
    calibrated = precision == "int8"
    with_images = spu_ir.compile(
        NETWORK.build(), preprocess=images, calibration=[feeds] if calibrated else None, **common
    )
    with_arrays = spu_ir.compile(
        NETWORK.build(), calibration=[{"input_1.1": plain}] if calibrated else None, **common
    )
    np.testing.assert_array_equal(
        with_images.run(feeds)["softmax_tensor:0"],
        with_arrays.run({"input_1.1": plain})["softmax_tensor:0"],
    )
    if calibrated:
        # Normalising and quantising are one table of bytes, and nothing is turned around.
        tiled = [line for line in with_images.ir("quantised").splitlines() if "preprocess" in line]
        assert any("tensor<3x256xui8>" in line for line in tiled)
        assert "vpu.transpose" not in with_images.ir("quantised")


@pytest.fixture(scope="module")
def given_back() -> CompiledModel:
    images = ImageInput(size=8, resize=8, input="x", canvas=64)
    return spu_ir.compile(
        identity("n", 3, 8, 8), precision="fp32", shapes={"n": (1, 4)}, preprocess=images
    )


@pytest.mark.parametrize(
    ("axis", "numbers"),
    [
        (0, (0, 0, 8, 0)),
        (1, (20, 0, 0, 0)),
        (0, (20, 0, 8, 1)),
        (1, (20, 0, 8, -1)),
        (0, (30, 0, 8, 0)),
        (1, (20, 5, 8, 0)),
        (0, (2**31 - 1, 0, 8, 0)),
    ],
)
def test_a_geometry_that_is_not_the_canvas_fails_the_run(
    given_back: CompiledModel, axis: int, numbers: tuple[int, ...]
) -> None:
    canvas = noise(0, 20, 20)[None]
    geometry = np.array([[[20, 0, 8, 0], [20, 0, 8, 0]]], np.int32)
    given_back.run({"x": canvas, "x.geometry": geometry})
    geometry[0, axis] = numbers
    with pytest.raises(SpuError, match="geometry among the inputs is impossible, or reaches"):
        given_back.run({"x": canvas, "x.geometry": geometry})


def test_images_that_the_canvas_cannot_hold(given_back: CompiledModel) -> None:
    images = ImageInput.of(given_back)
    assert images.feeds([noise(0, 50, 3000)])["x"].shape == (1, 64, 64, 3)
    with pytest.raises(SpuError, match=r"70 x 70 has more pixels.*canvas of 64 x 64"):
        images.feeds([noise(0, 70, 70)])
    for wrong in (noise(0, 5, 5, 1), noise(0, 5, 5).astype(np.float32), noise(0, 5, 5)[:0]):
        with pytest.raises(SpuError, match=r"images are uint8 \[height, width, 3\]"):
            images.feeds([wrong])
    with pytest.raises(SpuError, match="no image to make a batch of"):
        images.feeds([])


# ---- the description


def test_a_package_keeps_how_it_takes_images(given_back: CompiledModel, tmp_path: Path) -> None:
    given_back.save(tmp_path / "m.spu", levels=[given_back.level])
    loaded = spu_ir.load(tmp_path / "m.spu")
    images = ImageInput.of(loaded)
    assert images == ImageInput(size=8, resize=8, input="x", canvas=64)
    assert ImageInput.from_json(json.loads(json.dumps(images.json()))) == images
    feeds = images.feeds([noise(0, 20, 20)])
    np.testing.assert_array_equal(loaded.run(feeds)["y"], given_back.run(feeds)["y"])
    for wrong in ({"sise": 8}, [], {"size": "big"}):
        with pytest.raises(SpuError, match="no description of an image input"):
            ImageInput.from_json(wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": "left"}, "crop 'left' is not known; use centre, none"),
        ({"colour": "hsv"}, "colour 'hsv' is not known"),
        ({"interpolation": "nearest"}, "use bilinear, bicubic"),
        ({"layout": "CHW"}, "layout 'CHW' is not known"),
        ({"mean": (0.5,)}, "is not 3 numbers"),
        ({"std": (1, 0, 1)}, "std and divide must be greater than 0"),
        ({"colour": "grey"}, "is not 1 numbers"),
        ({"size": 300}, "300 x 300 is not part of a shorter side of 256"),
        ({"resize": None}, "or crop='none'"),
        ({"size": 0}, "size 0 is not 1 to 2048"),
        ({"canvas": 0}, "is not 1 to 0"),
    ],
)
def test_settings_that_go_together_in_no_way(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpuError, match=message.replace("(", r"\(")):
        ImageInput(**settings)


def test_the_longer_side_is_rounded_down_and_halves_go_to_even() -> None:
    """As torchvision's Resize(256) and CenterCrop(224)."""
    images = ImageInput()
    assert images.target(375, 500) == (256, 341)
    assert images.target(500, 375) == (341, 256)
    rows, columns = images.windows(375, 500)
    # (341 - 224) / 2 is 58.5.
    assert (rows.first, columns.first) == (16, 58)
    assert (rows.extent, rows.resized) == (375, 256)


def test_an_input_that_is_no_image_is_named() -> None:
    with pytest.raises(
        SpuError, match=r"one input of f32 \[N, 3, 224, 224\] or .* the inputs are x"
    ):
        spu_ir.compile(identity(1, 3, 32, 32), precision="fp32", preprocess=ImageInput())
    with pytest.raises(SpuError, match=r"input 'z' of f32"):
        spu_ir.compile(identity(1, 3, 224, 224), precision="fp32", preprocess=ImageInput(input="z"))


def test_the_pass_can_be_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It changes the inputs, so that what follows is compared with what it left."""
    source = Path(__file__).parent / "filecheck" / "transforms" / "preprocess_images.mlir"
    module = tmp_path / "m.mlir"
    module.write_text(source.read_text().partition("// -----")[0])
    passes = "preprocess-images{height=2 width=3 mean=0.5,0.0,1.0 std=0.5,1.0,2.0 colour=bgr}"
    arguments = [str(module), "-p", f"{passes},sink-transposes,canonicalize,cse,dce"]
    assert spu_opt([*arguments, "--verify-passes"]) == 0
    assert "vpu.resize" in capsys.readouterr().out


# ---- the command


def test_settings_in_a_line() -> None:
    line = "size=480x640,crop=none,mean=0:0:0,std=1:1:1,divide=1,colour=bgr,antialias=no,input=x"
    assert parse_images(line) == ImageInput(
        size=(480, 640), resize=None, crop="none", mean=(0, 0, 0), std=(1, 1, 1), divide=1,
        colour="bgr", antialias=False, input="x",
    )  # fmt: skip
    assert parse_images("") == ImageInput()
    for wrong in ("size=big", "resise=3", "antialias=perhaps", "size=1x2x3"):
        with pytest.raises(SpuError, match=f"--images has '{wrong}'"):
            parse_images(wrong)


def test_from_an_onnx_file_and_photographs_to_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(NETWORK.build(), tmp_path / "m.onnx")
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        (photos / f"{seed}.jpg").write_bytes(simplejpeg.encode_jpeg(noise(seed, 50, 60)))
    arguments = [str(tmp_path / "m.onnx"), "-o", str(tmp_path / "m.spu"), "--shapes", "batch=1:4"]
    arguments += ["--images", "size=32,resize=40", "--levels", host_levels()[-1]]
    assert spu_compile([*arguments, "--calibration", str(photos)]) == 0
    assert ImageInput.of(spu_ir.load(tmp_path / "m.spu")).input == "input_1.1"
    capsys.readouterr()
    assert spu_run([str(tmp_path / "m.spu"), "--jpeg", str(photos), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 3
    (photos / "1.jpg").write_text("no picture")
    assert spu_compile([*arguments, "--calibration", str(photos)]) == 1
    assert "1.jpg' cannot be calibrated with: the file is no JPEG" in capsys.readouterr().err
    assert spu_compile([*arguments, "--sensitivity", "--calibration", str(photos)]) == 1
    assert "leave --images out" in capsys.readouterr().err


def test_the_longest_row_is_the_kernels() -> None:
    """What the verifier lets through fits the buffers on a core's stack."""
    header = (DEVICE / "vpu_image.h").read_text(encoding="utf-8")
    assert f"VPU_RESIZE_ROW = {MAX_ROW}," in header
