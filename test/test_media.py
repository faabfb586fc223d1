"""Pictures and films through a compiled model: bad ones are named, and the rest is answered."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

import spu_ir
from benchmarks.media import main as benchmark
from benchmarks.media import show
from spu_ir import extras
from spu_ir.errors import SpuError
from spu_ir.media import ImageInput, codec, jpeg, wheels
from spu_ir.media.exif import orientation_of
from spu_ir.media.jpeg import decode_jpeg
from spu_ir.media.pipeline import MediaPipeline
from spu_ir.media.video import frames
from spu_ir.runtime import cards_codec
from spu_ir.runtime.model import CompiledModel
from spu_ir.targets import Target
from spu_ir.tools.spu_run import main as spu_run
from spu_ir.zoo import ResNetConfig, published

Array = NDArray[Any]

IMAGES = ImageInput(size=32, resize=36, input="input_1.1")
NETWORK = replace(
    published("resnet50"), config=ResNetConfig(blocks=(1, 1), width=16, image=32, classes=10)
)


def photo(seed: int, height: int, width: int, channels: int = 3) -> Array:
    """Noise that is smooth enough for a JPEG."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), np.uint8)
    return np.ascontiguousarray(small.repeat(8, 0).repeat(8, 1)[:height, :width])


def encoded(image: Array, **options: Any) -> bytes:
    """A JPEG, without loss of colours."""
    space = {1: "GRAY", 3: "RGB", 4: "CMYK"}[image.shape[2]]
    sampling = "Gray" if space == "GRAY" else "444"
    options = {"quality": 95, "colorspace": space, "colorsubsampling": sampling, **options}
    return simplejpeg.encode_jpeg(image, **options)


def with_orientation(data: bytes, orientation: int, order: str = ">") -> bytes:
    """A JPEG with an EXIF segment that says so."""
    mark = b"MM" if order == ">" else b"II"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = mark + struct.pack(order + "HIH", 42, 8, 1) + entry + struct.pack(order + "I", 0)
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def film(path: Path, count: int = 40, rotation: int = 0) -> None:
    """A film of 64 x 48 whose frames become brighter, its index in front where there is one."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            pixels = np.full((48, 64, 3), 5 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    """A small ResNet in INT8 that takes pictures."""
    feeds = [IMAGES.feeds([photo(seed, 60, 50) for seed in range(4)])]
    return spu_ir.compile(
        NETWORK.build(), shapes={"batch": (1, 4)}, calibration=feeds, preprocess=IMAGES
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad pictures, in the order of their names."""
    place = tmp_path_factory.mktemp("photos")
    good = encoded(photo(1, 120, 90))
    files = {
        "a.jpg": good,
        "b-corrupt.jpg": good[:700] + bytes(40) + good[740:],
        "c-cmyk.jpg": encoded(photo(2, 50, 70, 4)),
        "d-one.jpg": encoded(photo(3, 1, 1)),
        "e-text.jpg": b"hello, this is no picture\n",
        "f-cut.jpg": good[: len(good) // 2],
        "g-grey.JPEG": encoded(photo(4, 80, 60, 1)),
        "h-empty.jpg": b"",
        "i-png.jpg": b"\x89PNG\r\n\x1a\n" + bytes(30),
        "j.jpg": encoded(photo(5, 400, 300)),
        "k.txt": b"not looked at",
    }
    for name, data in files.items():
        (place / name).write_bytes(data)
    return place


GOOD = ("a.jpg", "c-cmyk.jpg", "d-one.jpg", "g-grey.JPEG", "j.jpg")
BAD = {
    "b-corrupt.jpg": "is damaged",
    "e-text.jpg": "no JPEG: it begins with b'hello, this '",
    "f-cut.jpg": "damaged: Premature end of JPEG file",
    "h-empty.jpg": "is empty",
    "i-png.jpg": "is a PNG, not a JPEG",
}


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix != ".txt")


# ---- the pipeline


@pytest.mark.parametrize(("batch", "decoders"), [(1, 1), (3, 2), (4, 1)])
def test_bad_pictures_are_named_and_the_rest_is_answered_in_order(
    model: CompiledModel, folder: Path, batch: int, decoders: int
) -> None:
    pipeline = MediaPipeline(model, batch=batch, decoders=decoders)
    answers = list(pipeline.jpegs(pictures(folder)))
    assert [answer.name for answer in answers] == [str(path) for path in pictures(folder)]
    for answer in answers:
        name = Path(answer.name).name
        if name in BAD:
            assert answer.error is not None
            assert BAD[name] in answer.error
            assert not answer.outputs
            continue
        assert name in GOOD
        assert answer.error is None
        pixels = decode_jpeg(Path(answer.name).read_bytes(), IMAGES).pixels
        alone = model.run(IMAGES.feeds([pixels]))
        np.testing.assert_array_equal(
            answer.outputs["softmax_tensor:0"], alone["softmax_tensor:0"][0]
        )
    assert (pipeline.work.pictures, pipeline.work.bad) == (10, 5)


def test_only_bad_pictures(model: CompiledModel, folder: Path) -> None:
    answers = list(MediaPipeline(model).jpegs([folder / "e-text.jpg", folder / "missing.jpg"]))
    assert [answer.error is None for answer in answers] == [False, False]
    assert answers[1].error == "the file cannot be read: No such file or directory"
    assert list(MediaPipeline(model).jpegs([])) == []


def test_what_waits_is_bounded(model: CompiledModel, folder: Path) -> None:
    """Files are asked for as answers are taken, not all at once."""
    asked = 0

    def endless() -> Any:
        nonlocal asked
        while True:
            asked += 1
            yield folder / "a.jpg"

    answers = MediaPipeline(model, batch=2).jpegs(endless())
    for _ in range(10):
        next(answers)
    answers.close()
    # Ten are answered; two batches wait, one runs, and two batches and one are being decoded.
    assert asked <= 10 + 2 * 3 + 2 * 2 + 1 + 2


def test_a_model_with_one_batch_takes_part_of_one(folder: Path) -> None:
    feeds = [IMAGES.feeds([photo(seed, 60, 50) for seed in range(2)])]
    fixed = spu_ir.compile(
        NETWORK.build(), shapes={"batch": 2}, calibration=feeds, preprocess=IMAGES
    )
    pipeline = MediaPipeline(fixed)
    answers = list(pipeline.jpegs([folder / name for name in GOOD]))
    assert [answer.error for answer in answers] == [None] * 5
    with pytest.raises(SpuError, match="takes 2 pictures at a time, not 3"):
        MediaPipeline(fixed, batch=3)


def test_what_a_pipeline_refuses(model: CompiledModel) -> None:
    with pytest.raises(SpuError, match=r"a batch of 5 is outside.*use 1 to 4"):
        MediaPipeline(model, batch=5)
    with pytest.raises(SpuError, match="0 decoders"):
        MediaPipeline(model, decoders=0)
    arrays = spu_ir.compile(NETWORK.build(), precision="fp32", shapes={"batch": 1})
    with pytest.raises(SpuError, match=r"takes arrays, not images.*preprocess=ImageInput"):
        MediaPipeline(arrays)


def test_codecs_are_counted_for_the_card(
    model: CompiledModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int | None, int, float]] = []
    monkeypatch.setattr(cards_codec, "record_codec", lambda *given: counted.append(given))
    assert model.device is not None
    list(MediaPipeline(model).jpegs([folder / name for name in GOOD[:3]]))
    (one,) = counted
    pixels = 120 * 90 + 50 * 70 + 1
    expected = codec.decode_seconds(Target.load("s4"), jpeg_pixels=pixels)
    assert one == (model.device, 3, pytest.approx(expected))


def test_modelled_time_of_the_codecs() -> None:
    s30 = Target.load("s30")
    picture = 1920 * 1080
    assert codec.decode_seconds(s30, jpeg_pixels=6960 * picture) == pytest.approx(1.0)
    assert codec.decode_seconds(s30, video_pixels=192 * 30 * picture) == pytest.approx(1.0)
    none = s30.replace(codec__jpeg=0, codec__video=0)
    assert codec.decode_seconds(none, jpeg_pixels=5, video_pixels=5) == 0


# ---- video


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_every_tenth_frame(model: CompiledModel, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"film.{kind}"
    film(path)
    answers = list(MediaPipeline(model, batch=3).video(path, every=10))
    assert [answer.name for answer in answers] == [f"{path}#{n}" for n in (0, 10, 20, 30)]
    assert all(answer.error is None for answer in answers)
    seen = [int(each.pixels.mean()) for each in frames(path, every=10)]
    assert np.abs(np.array(seen) - [0, 50, 100, 150]).max() <= 3


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_film_that_is_cut_off(model: CompiledModel, tmp_path: Path, kind: str) -> None:
    whole, path = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    film(whole)
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    *good, last = MediaPipeline(model).video(path, every=10)
    assert [answer.name for answer in good] == [f"{path}#{10 * n}" for n in range(len(good))]
    assert all(answer.error is None for answer in good)
    assert good
    assert last.name == str(path)
    assert last.error is not None
    assert any(word in last.error for word in ("the video ends after", "frame"))


def test_what_is_no_video(model: CompiledModel, folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    for path, cause in ((text, "opened"), (tmp_path / "missing.mp4", "No such file")):
        (answer,) = MediaPipeline(model).video(path)
        assert answer.error is not None
        assert cause in answer.error
    with pytest.raises(SpuError, match="every 0 is no step"):
        next(frames(text, every=0))
    path = tmp_path / "film.mp4"
    film(path, 3)
    with pytest.raises(SpuError, match=r"48 x 64 pixels, more than 3,000"):
        next(frames(path, max_pixels=3000))


# ---- decoding


def test_a_jpeg_is_reduced_as_far_as_it_still_covers() -> None:
    images = ImageInput(size=64, resize=64)
    for side, expected in ((63, 63), (126, 126), (127, 64), (300, 75), (504, 126), (505, 64)):
        pixels = decode_jpeg(encoded(photo(side, side, side + 9)), images).pixels
        assert len(pixels) == expected
    data = encoded(photo(1, 512, 512))
    assert decode_jpeg(data, images, reduce=False).pixels.shape == (512, 512, 3)
    assert decode_jpeg(data).coded == 512 * 512


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation(tmp_path: Path, orientation: int, order: str) -> None:
    data = with_orientation(encoded(photo(9, 24, 40)), orientation, order)
    path = tmp_path / "turned.jpg"
    path.write_bytes(data)
    assert orientation_of(data) == orientation
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(decode_jpeg(data).pixels, expected)
    assert decode_jpeg(data, orient=False).pixels.shape == (24, 40, 3)


@pytest.mark.parametrize("damage", [b"XX", b"MM\0\x2a\0\0\xff\xff", b"II", b"MM\0\x2b\0\0\0\x08"])
def test_orientation_that_is_nonsense_is_none(damage: bytes) -> None:
    body = b"Exif\0\0" + damage
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    data = encoded(photo(9, 24, 40))
    assert decode_jpeg(data[:2] + segment + data[2:]).pixels.shape == (24, 40, 3)
    assert orientation_of(with_orientation(data, 9)) == 1


def test_colours(tmp_path: Path) -> None:
    """CMYK as Pillow has it; grey for a model in grey is the luma that is in the file."""
    cmyk = encoded(photo(2, 40, 48, 4))
    path = tmp_path / "cmyk.jpg"
    path.write_bytes(cmyk)
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("RGB")).astype(int)
    # Each rounds its products in its own way.
    assert np.abs(decode_jpeg(cmyk).pixels - expected).max() <= 2
    grey = ImageInput(size=8, resize=8, colour="grey", mean=(0.5,), std=(0.5,))
    assert decode_jpeg(encoded(photo(4, 9, 9)), grey).pixels.shape == (9, 9, 1)
    assert decode_jpeg(encoded(photo(4, 9, 9, 1))).pixels.shape == (9, 9, 3)


def test_huge_declared_sizes_are_refused_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bytearray(encoded(photo(1, 8, 8)))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    monkeypatch.setattr(wheels, "extra_module", lambda *_: _HeaderOnly())
    with pytest.raises(SpuError, match=r"65500 x 65500 pixels, more than 100,000,000"):
        decode_jpeg(bytes(data))


class _HeaderOnly:
    """simplejpeg, and no decoding."""

    decode_jpeg_header = staticmethod(simplejpeg.decode_jpeg_header)


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(extras, "import_module", missing)
    for load in (wheels.simplejpeg, wheels.pyav):
        with pytest.raises(SpuError, match=r"cannot be loaded.*spu-ir\[media\]"):
            load()
    assert jpeg.MAX_PIXELS == 100_000_000


# ---- the command and the benchmark


@pytest.fixture(scope="module")
def package(model: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packages") / "small.spu"
    model.save(path, levels=[model.level])
    return path


def test_the_command_answers_a_folder(
    package: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"kind {n}" for n in range(10)))
    code = spu_run([str(package), "--jpeg", str(folder), "--labels", str(labels), "--json"])
    output = capsys.readouterr()
    assert code == 1
    assert "5 of 10 pictures are bad: " in output.err
    report = json.loads(output.out)
    assert (report["pictures"], report["bad"], report["batch"]) == (10, 5, 4)
    for row in report["answers"]:
        name = Path(row["name"]).name
        if name in BAD:
            assert BAD[name] in row["error"]
            continue
        scores = [each["score"] for each in row["top"]]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        assert all(each["label"] == f"kind {each['class']}" for each in row["top"])


def test_the_command_without_bad_pictures(
    package: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spu_run([str(package), "--jpeg", str(folder / "[aj].jpg")]) == 0
    output = capsys.readouterr()
    assert output.out.count("a.jpg\n") == output.out.count("j.jpg\n") == 1
    assert "2 pictures in " in output.out
    assert output.err == ""
    path = tmp_path / "film.mp4"
    film(path)
    assert spu_run([str(package), "--video", str(path), "--every", "20"]) == 0
    assert "film.mp4#20\n" in capsys.readouterr().out


def test_the_command_names_a_film_that_is_cut_off(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film(tmp_path / "whole.avi")
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    assert spu_run([str(package), "--video", str(tmp_path / "cut.avi"), "--every", "5"]) == 1
    output = capsys.readouterr()
    assert "cut.avi#0\n" in output.out
    # FFmpeg refuses the frame that the end goes through, or leaves it out.
    cause = re.search(
        r"cut.avi: bad: (the video ends after|frame \d+ cannot be decoded)", output.out
    )
    assert cause is not None
    assert f"cut.avi: {cause[1]}" in output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jpeg", "nowhere/*.jpg"], "there is no picture in 'nowhere/*.jpg'"),
        (["--jpeg", "x.jpg", "--video", "x.mp4"], "give one of them"),
        (["--jpeg", "x.jpg", "--random"], "--random is for arrays"),
        (["--jpeg", "x.jpg", "--repeat", "2"], "--repeat is for arrays"),
        (["--jpeg", "x.jpg", "--labels", "missing.txt"], "the labels in 'missing.txt'"),
    ],
)
def test_what_the_command_refuses(
    package: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert spu_run([str(package), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_the_benchmark_prints_every_rate(
    package: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(package), "--batch", "4", "--pictures", "9", "--rounds", "1"]
    benchmark([*arguments, "--json", "--jpeg", *[str(folder / name) for name in GOOD]])
    report = json.loads(capsys.readouterr().out)
    for stage in ("decode", "inference", "end_to_end"):
        assert report[f"{stage}_per_s"] > 0
        assert report[f"{stage}_cpu_ms"] > 0
    slower = min(report["decode_per_s"], report["inference_per_s"])
    assert report["of_the_slower"] == pytest.approx(report["end_to_end_per_s"] / slower)
    assert report["codec_of_an_s30_per_s"] > 6960
    show(report)
    assert "of the slower stage" in capsys.readouterr().out


def test_a_long_list_of_labels_is_needed(
    package: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    arguments = [str(package), "--jpeg", str(folder / "a.jpg"), "--labels", str(labels)]
    assert spu_run(arguments) == 1
    assert "2 labels for 10 classes" in capsys.readouterr().err
