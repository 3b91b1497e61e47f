"""Data sets: what they hold, and what is said of broken ones."""

import functools
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from surroundings import shared

import jaxmeta as jm
from jaxmeta.data import cache


def test_glyphs_are_letters_split_by_script():
    splits = {s: jm.data.glyphs(s) for s in ("train", "validation", "test")}
    groups = {s: set(data.groups) for s, data in splits.items()}
    assert groups == {
        "train": {"Latin", "Greek", "Cyrillic"},
        "validation": {"Armenian"},
        "test": {"Georgian", "Lao"},
    }
    everything = jm.data.glyphs("all")
    assert sum(len(data.classes) for data in splits.values()) == len(everything.classes)
    assert len(everything.classes) > 500 and everything.counts.min() >= 8
    assert everything.x.dtype == np.uint8
    assert everything.x.shape[1:] == (28, 28, 1)
    # white paper 0, ink up to 1, and no two letters look the same
    first = everything.x[everything.offsets]
    ink = (first > 127).mean(axis=(1, 2, 3))
    assert ink.min() > 0.01 and ink.max() < 0.5 and first.max() == 255
    assert len({image.tobytes() for image in first}) == len(first)
    assert "latin capital letter a" in everything.classes
    assert "greek capital letter alpha" not in everything.classes
    with pytest.raises(ValueError, match="split: expected one of train"):
        jm.data.glyphs("tset")


def test_glyphs_survive_a_broken_or_forbidden_cache(tmp_path, monkeypatch):
    module = sys.modules[jm.data.glyphs.__module__]
    drawn = module._drawn()[-200:]  # as the suite's cache has them, and fewer
    monkeypatch.setattr(module, "_draw_all", lambda: drawn)
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))

    def read_anew():
        module._everything.cache_clear()
        return jm.data.glyphs("test").x

    images = read_anew()
    (file,) = (tmp_path / "cache").iterdir()
    for broken in (b"", file.read_bytes()[:-100], b"PK nonsense"):
        file.write_bytes(broken)
        np.testing.assert_array_equal(read_anew(), images)
    (tmp_path / "occupied").write_text("not a folder")
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "occupied"))
    np.testing.assert_array_equal(read_anew(), images)
    module._everything.cache_clear()  # not to be left with few


def test_cache_notices_other_content(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path))
    calls = []

    def make(value):
        def array():
            calls.append(value)
            return np.array([value])

        return array

    assert cache.cached("a", "1", make(1)) == cache.cached("a", "1", make(2)) == 1
    assert cache.cached("a", "2", make(3)) == 3
    (file,) = [f for f in tmp_path.iterdir() if np.load(f)["array"] == 1]
    np.savez(file, array=np.array([7]), checksum="wrong")  # a file with another content
    assert cache.cached("a", "1", make(4)) == 4
    assert calls == [1, 3, 4]


def drawings(characters=2, drawers=20):
    """Entries of a small archive: alphabet/character/drawing -> PNG."""
    entries = {}
    for c in range(1, characters + 1):
        for d in range(1, drawers + 1):
            picture = Image.new("1", (105, 105), 1)
            picture.paste(0, (c * 10, d, c * 10 + 40, d + 40))
            file = io.BytesIO()
            picture.save(file, "PNG")
            name = f"images_background/Tengwar/character{c:02d}/{c:04d}_{d:02d}.png"
            entries[name] = file.getvalue()
    return entries


def archive(folder: Path, entries: dict[str, bytes]) -> Path:
    path = folder / "images_background.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return path


def test_omniglot_reads_an_archive(tmp_path):
    archive(tmp_path, drawings())
    data = jm.data.omniglot(tmp_path, "background")
    assert data.classes == ("Tengwar/character01", "Tengwar/character02")
    assert data.groups == ("Tengwar", "Tengwar")
    assert data.x.shape == (40, 28, 28, 1)
    # drawn = 1: the square of 40 x 40 of 105 x 105 is ink
    assert abs(data.x.mean() / 255 - (40 / 105) ** 2) < 0.01
    row = data.of(0)[:, :, 5, 0].astype(float)  # drawers in order, top to bottom
    assert (np.diff((row * np.arange(28)).sum(1) / row.sum(1)) > 0).all()


def test_broken_archives_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no archive .*images_background\.zip"):
        jm.data.omniglot(tmp_path)
    path = archive(tmp_path, drawings())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ValueError, match="truncated or not a zip archive.*fetch it again"
    ):
        jm.data.omniglot(tmp_path)
    for unsafe in ("../../etc/cron.d/x.png", "/etc/x.png", "C:/x.png", "a\\..\\b.png"):
        archive(tmp_path, drawings() | {unsafe: b""})
        with pytest.raises(ValueError, match="unsafe path"):
            jm.data.omniglot(tmp_path)
    archive(tmp_path, drawings(drawers=19))
    with pytest.raises(ValueError, match="expected 20 drawings .*character01 has 19"):
        jm.data.omniglot(tmp_path)
    entries = drawings()
    name = next(iter(entries))
    archive(tmp_path, entries | {name: entries[name][:60]})
    with pytest.raises(ValueError, match="0001_01.png: the image is truncated"):
        jm.data.omniglot(tmp_path)
    damaged = bytearray(content)
    damaged[content.index(b"IDAT") + 6] ^= 0xFF  # the entry's checksum is wrong now
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="can't be read"):
        jm.data.omniglot(tmp_path)
    with pytest.raises(ValueError, match="split: expected one of"):
        jm.data.omniglot(tmp_path, "vinyals")


@pytest.mark.slow
def test_omniglot_splits_are_the_published_ones(monkeypatch):
    module = sys.modules[jm.data.omniglot.__module__]
    monkeypatch.setattr(module, "_read", functools.cache(module._read))  # each once
    root = shared("data/omniglot")
    sizes = {
        "background": (964, 30),
        "evaluation": (659, 20),
        "small1": (136, 5),
        "small2": (156, 5),
        "all": (1623, 50),
        "vinyals_train": (1028, 33),
        "vinyals_validation": (172, 5),
        "vinyals_test": (423, 13),
        "random_train": (1200, 50),
        "random_test": (423, 50),
    }
    classes = {}
    for split, size in sizes.items():
        data = jm.data.omniglot(root, split)
        assert (len(data.classes), len(set(data.groups))) == size
        assert data.x.shape == (20 * size[0], 28, 28, 1)
        assert 0.05 < data.x.mean() / 255 < 0.12  # ink is rare
        classes[split] = set(data.classes)
    everything = classes["all"]
    assert classes["background"] | classes["evaluation"] == everything
    assert classes["random_train"] | classes["random_test"] == everything
    vinyals = [classes[f"vinyals_{s}"] for s in ("train", "validation", "test")]
    assert set.union(*vinyals) == everything and sum(map(len, vinyals)) == 1623
    other = jm.data.omniglot(root, "random_test", seed=1)
    assert set(other.classes) != classes["random_test"]


def test_from_arrays_keeps_every_example():
    random = np.random.default_rng(0)
    images, labels = random.random((50, 3)), random.integers(0, 4, 50)
    data = jm.data.from_arrays(images, labels)
    for k in range(4):
        np.testing.assert_allclose(data.of(k), images[labels == k], rtol=1e-6)
    np.testing.assert_allclose(data.x, images[data.origin], rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (np.array([[0.0], [np.nan]]), [0, 1], "NaN or infinite, first in example 1"),
        (np.zeros((3, 2)), [0, 1], r"got shapes \(3, 2\) and \(2,\)"),
        (np.zeros((0, 2)), [], "expected images"),
        (np.zeros((2, 2), bool), [0, 1], "uint8 .*or floating, got bool"),
        (np.full((2, 2), 2**40), [0, 1], "whole numbers of 32 bits"),
    ],
)
def test_wrong_arrays_are_refused(images, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.data.from_arrays(images, labels)


@pytest.fixture
def bits():
    return False


@pytest.fixture
def prepared(tmp_path, bits):
    """A TFDS set as `tfds build --file_format=array_record` leaves it."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2 as examples
    from tensorflow_datasets.proto import tf_feature_pb2 as features

    folder = tmp_path / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    writer = ArrayRecordWriter(
        str(folder / "tiny-train.array_record-00000-of-00001"), "group_size:1"
    )
    for i in range(12):
        file = io.BytesIO()
        picture = np.full((8, 8 + 2 * (i == 0)), i, np.uint8)
        picture = picture % 2 > 0 if bits else picture
        Image.fromarray(picture).save(file, "PNG")
        values = {
            "image": features.Feature(
                bytes_list=features.BytesList(value=[file.getvalue()])
            ),
            "label": features.Feature(int64_list=features.Int64List(value=[i % 3])),
            "kind": features.Feature(int64_list=features.Int64List(value=[i % 3 // 2])),
        }
        example = examples.Example(features=features.Features(feature=values))
        writer.write(example.SerializeToString())
    writer.close()
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        dataset_name="tiny",
        split="train",
        filetype_suffix="array_record",
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 1)),
                "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
                "kind": tfds.features.ClassLabel(names=["insect", "mammal"]),
            }
        ),
        split_infos=[
            tfds.core.SplitInfo(
                name="train",
                shard_lengths=[12],
                num_bytes=0,
                filename_template=template,
            )
        ],
        check_data=False,
    )
    info = folder / "dataset_info.json"
    info.write_text(
        json.dumps(json.loads(info.read_text()) | {"fileFormat": "array_record"})
    )
    return tmp_path


def test_from_tfds_reads_without_tensorflow(prepared):
    data = jm.data.from_tfds("tiny", "train[1:]", data_dir=prepared)
    assert data.classes == ("ant", "bee", "cat") and data.counts.tolist() == [3, 4, 4]
    assert data.x[:, 0, 0, 0].tolist() == [3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    data = jm.data.from_tfds("tiny", group="kind", size=(4, 6), data_dir=prepared)
    assert data.x.shape == (12, 4, 6, 1)
    assert data.groups == ("insect", "insect", "mammal")


@pytest.mark.parametrize("bits", [True])
def test_black_and_white_files_of_tfds_are_black_and_white(prepared):
    data = jm.data.from_tfds("tiny", "train[1:]", data_dir=prepared)
    assert data.x[:, 0, 0, 0].tolist() == [255 * (i % 2) for i in data.origin + 1]


def test_omniglot_through_tfds_and_its_manual_folder(tmp_path):
    """Prepared from the archives; where TensorFlow is installed, as TFDS needs it."""
    pytest.importorskip("tensorflow")
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(
        manual_dir=shared("data/omniglot"),
        register_checksums=True,  # of archives that are packed anew
    )
    options = {"data_dir": tmp_path, "file_format": "array_record"}
    tfds.builder("omniglot", **options).download_and_prepare(download_config=config)
    options = {"size": (28, 28), "group": "alphabet", "data_dir": tmp_path}
    theirs = jm.data.from_tfds("omniglot", "small1", **options)
    ours = jm.data.omniglot(shared("data/omniglot"), "small1")
    assert theirs.groups == ours.groups and len(theirs.classes) == 136
    ink = lambda x, axis: np.sort(x.reshape(136, 20, -1).mean(axis=axis), axis=-1)
    # the same drawings, in another order: drawn is dark there, and bright here
    np.testing.assert_allclose(ink(255.0 - theirs.x, (2,)), ink(ours.x, (2,)), atol=0.5)


@pytest.mark.parametrize(
    ("error", "options", "sentence"),
    [
        (
            ValueError,
            {"name": "tiny"},
            r"differ in shape .*give size=\(height, width\)",
        ),
        (ValueError, {"name": "tinny"}, "knows no set 'tinny'"),
        (ValueError, {"name": "tiny", "split": "test"}, "no split 'test'; .*train"),
        (
            ValueError,
            {"name": "tiny", "label": "y"},
            "no feature 'y'; .*image, kind, label",
        ),
        (
            FileNotFoundError,
            {"name": "mnist"},
            r"jaxmeta\[tf\].*file_format='array_record'",
        ),
    ],
)
def test_from_tfds_says_what_is_wrong(prepared, error, options, sentence):
    with pytest.raises(error, match=sentence):
        jm.data.from_tfds(**options, data_dir=prepared)
