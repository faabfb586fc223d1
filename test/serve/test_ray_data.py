"""Batch jobs on a local Ray cluster: every input is answered once, also when a worker dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from support.mortal import Mortal

import spu_ir
from spu_ir.contrib.ray_data import FilePredictor, Predictor, predict, predict_files
from spu_ir.contrib.ray_package import OnPath, digest_of_package, pack, ship, unpack
from spu_ir.errors import SpuError
from spu_ir.media import ImageInput
from spu_ir.runtime.cache import cache_folder


@pytest.fixture(scope="module")
def cluster(ray_home: None) -> Iterator[Any]:
    """Ray with two processors, on this machine only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # support/, for its workers
        import ray

        # Ray takes 127.0.0.1 for an address of this machine that others reach, except so.
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        ray.init(
            num_cpus=2,
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
        )
        yield ray
        ray.shutdown()


def save_ids(folder: Path, count: int) -> list[str]:
    """Files of ids, of three lengths."""
    rng = np.random.default_rng(1)
    paths: list[str] = []
    for number in range(count):
        paths.append(str(folder / f"{number}.npy"))
        np.save(paths[-1], rng.integers(0, 40, 4 + 3 * (number % 3)))
    return paths


def check_against(package: Path, rows: list[dict[str, Any]]) -> None:
    """Every answer has the bits of a run of its own."""
    model = spu_ir.load(package, threads=1)
    for row in rows:
        alone = model.run({"ids": np.load(row["id"])[None]})
        np.testing.assert_array_equal(row["logits"], alone["logits"][0])
        assert row["peak"] == alone["peak"][0]


def test_a_worker_that_dies_half_way_loses_and_repeats_nothing(
    cluster: Any, words: Path, tmp_path: Path
) -> None:
    paths = save_ids(tmp_path, 96)
    mark = tmp_path / "48.kill"
    mark.touch()
    results = predict_files(paths, words, predictor=Mortal, actors=2, batch=8)
    rows = results.take_all()
    assert not mark.exists()
    assert mark.with_suffix(".killed").exists()
    assert Counter(row["id"] for row in rows) == Counter(paths)
    assert [row["error"] for row in rows if row["error"]] == []
    check_against(words, rows)
    # Both actors, and the one that came for the dead one, share what one of them has unpacked.
    placed = [path.name for path in (cache_folder() / "packages").glob("*.spu")]
    assert placed == [f"{digest_of_package(words)}.spu"]


def test_bad_files_are_answered_by_their_error(cluster: Any, words: Path, tmp_path: Path) -> None:
    good = save_ids(tmp_path, 10)
    bad = {
        "hello.npy": "magic string",
        "text.txt": "cannot be read; give .jpg",
        "nowhere.npy": "No such file",
        "floats.npy": "has the dtype float32",
        "unknown-word.npy": "an index among the inputs is outside",
        "no-zip.npz": "no zip",
        "picture.jpg": "the model takes arrays, not images",
    }
    for name in ("hello.npy", "text.txt", "no-zip.npz", "picture.jpg"):
        (tmp_path / name).write_text("hello there")
    np.save(tmp_path / "floats.npy", np.zeros(4, np.float32))
    np.save(tmp_path / "unknown-word.npy", np.array([1, 2, 1000, 3]))
    paths = [*good, *(str(tmp_path / name) for name in bad)]
    rows = predict_files(paths, words, actors=1).take_all()
    assert Counter(row["id"] for row in rows) == Counter(paths)
    errors = {Path(row["id"]).name: row for row in rows if row["error"]}
    assert errors.keys() == bad.keys()
    for name, cause in bad.items():
        assert cause in errors[name]["error"]
        assert errors[name]["logits"].shape == (0,)
        assert errors[name]["peak"] is None or np.isnan(errors[name]["peak"])
    check_against(words, [row for row in rows if not row["error"]])


def test_pictures(cluster: Any, pictures: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    paths: list[str] = []
    for number in range(5):
        pixels = rng.integers(0, 256, (40 + 3 * number, 64, 3), np.uint8)
        paths.append(str(tmp_path / f"{number}.jpg"))
        Path(paths[-1]).write_bytes(simplejpeg.encode_jpeg(pixels))
    (tmp_path / "text.jpg").write_text("hello")
    paths.append(str(tmp_path / "text.jpg"))
    rows = predict_files(paths, pictures, actors=1).take_all()
    assert Counter(row["id"] for row in rows) == Counter(paths)
    answers = {row["id"]: row for row in rows}
    assert "the file is no JPEG" in answers[paths[-1]]["error"]
    model = spu_ir.load(pictures, threads=1)
    for path in paths[:-1]:
        pixels = simplejpeg.decode_jpeg(Path(path).read_bytes(), "RGB")
        (alone,) = model.run(ImageInput.of(model).feeds([pixels])).values()
        np.testing.assert_array_equal(answers[path]["softmax_tensor:0"], alone[0])


def test_tensors_from_parquet_to_parquet(cluster: Any, words: Path, tmp_path: Path) -> None:
    import ray.data

    ids = np.random.default_rng(2).integers(0, 40, (30, 6))
    rows = [{"id": number, "ids": ids[number], "label": number % 3} for number in range(30)]
    ray.data.from_items(rows).write_parquet(str(tmp_path / "in"))
    dataset = ray.data.read_parquet(str(tmp_path / "in"))
    results = predict(dataset, words, keep=["label"], actors=1, how="path")
    results.write_parquet(str(tmp_path / "out"))
    answers = ray.data.read_parquet(str(tmp_path / "out")).take_all()
    assert sorted(row["id"] for row in answers) == list(range(30))
    alone = spu_ir.load(words, threads=1)
    for row in answers:
        assert row["label"] == row["id"] % 3
        outputs = alone.run({"ids": ids[row["id"]][None]})
        np.testing.assert_array_equal(row["logits"], outputs["logits"][0])


def test_a_package_is_put_on_a_node_once_and_mended(
    words: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPU_IR_CACHE", str(tmp_path / "cache"))
    files, digest, sent = pack(words), digest_of_package(words), 0

    def send() -> Any:
        nonlocal sent
        sent += 1
        return files

    place = unpack(send, digest)
    assert place.parent == cache_folder() / "packages"
    assert unpack(send, digest) == place
    assert sent == 1
    spu_ir.load(place, threads=1, verify="always")
    with (place / "program.mlir").open("a") as file:
        file.write("\n")
    assert unpack(send, digest) == place
    assert sent == 2
    spu_ir.load(place, threads=1, verify="always")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("weights.safetensors", "its digest is not the manifest's"),
        ("../outside", "is no file of a package"),
        ("/outside", "is no file of a package"),
        ("lib/../../outside", "is no file of a package"),
    ],
)
def test_what_was_not_sent_is_not_kept(
    name: str, cause: str, words: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPU_IR_CACHE", str(tmp_path / "cache"))
    files = {**pack(words), name: np.zeros(5000, np.uint8)}
    with pytest.raises(SpuError, match=cause):
        unpack(lambda: files, digest_of_package(words))
    assert [path.name for path in tmp_path.rglob("*.spu")] == []
    assert not (tmp_path / "outside").exists()


def test_another_package_under_the_name_is_seen(words: Path, pictures: Path) -> None:
    shipped = ship(words, "path")
    assert isinstance(shipped, OnPath)
    assert shipped.folder() == words
    with pytest.raises(SpuError, match="is another one than the job began with"):
        OnPath(str(pictures), shipped.digest).folder()
    with pytest.raises(SpuError, match="every node needs the package there"):
        OnPath(str(words / "none"), shipped.digest).folder()


def test_a_predictor_says_what_is_missing(words: Path) -> None:
    predictor = Predictor(ship(words, "path"))
    result = predictor({"id": np.array(["a"]), "other": np.array([1])})
    assert result["error"].tolist() == ["the row has no column 'ids'"]
    assert result["peak"].tolist() == [None]


@pytest.mark.parametrize("keep", [["peak"], ["error"], ["label", "label"]])
def test_columns_of_one_name_are_refused(keep: list[str], words: Path) -> None:
    with pytest.raises(SpuError, match="two columns of the results would be called"):
        predict(None, words, keep=keep)


def test_a_dataset_without_ids_is_refused(words: Path) -> None:
    predictor = Predictor(ship(words, "path"), keep=["label"])
    with pytest.raises(SpuError, match="the dataset has no column 'id'"):
        predictor({"ids": np.zeros((1, 3), np.int64)})
    with pytest.raises(SpuError, match="the dataset has no column 'label'"):
        predictor({"id": np.zeros(1), "ids": np.zeros((1, 3), np.int64)})


def test_files_with_arrays_by_name(words: Path, tmp_path: Path) -> None:
    ids = np.arange(5)
    np.savez(tmp_path / "good.npz", ids=ids)
    np.savez(tmp_path / "more.npz", ids=ids, other=ids)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:-40])
    names = ["good.npz", "more.npz", "cut.npz"]
    predictor = FilePredictor(ship(words, "path"))
    result = predictor({"id": np.array([str(tmp_path / name) for name in names])})
    good, more, cut = result["error"]
    assert good == ""
    assert "there is no input 'other'" in more
    assert "the file is no npz" in cut
    alone = spu_ir.load(words, threads=1).run({"ids": ids[None]})
    np.testing.assert_array_equal(result["logits"][0], alone["logits"][0])
    assert result["peak"].tolist() == [alone["peak"][0], None, None]
