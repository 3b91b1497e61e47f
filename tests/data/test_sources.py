"""Data that a user has: images in folders, tables, sets of `datasets`; right and damaged."""

import csv
import io
import zipfile
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import jaxmeta as jm
from jaxmeta.data import (
    Dataset,
    from_csv,
    from_folder,
    from_huggingface,
    from_parquet,
    images,
)

pytestmark = pytest.mark.slow  # what it says depends on no version


def picture(path: Path, grey: int, size=(6, 5)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three classes of four images, of one group each or none; grey = their number."""
    root = tmp_path / "animals"
    for c, label in enumerate(("felines/cat", "felines/lynx", "dog")):
        for i in range(4):
            picture(root / label / f"{i}.png", 10 * c + i)
    return root


@pytest.fixture
def table(tmp_path) -> Path:
    return written(tmp_path, "label,a,b,note\n" + "cat,1,2.5,x\ndog,3,-4e1,y\n" * 4)


def written(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def runs(data: Dataset) -> jm.Task:
    """What each program goes on with."""
    return jm.tasks.episodes(data, ways=2, shots=1, queries=2).sample(jax.random.key(0))


def test_a_folder_of_images(folder):
    (folder / "felines" / ".hidden.png").write_text("")
    (folder / "dog" / "notes.txt").write_text("")
    data = from_folder(folder, mode="L")
    assert data.classes == ("dog", "felines/cat", "felines/lynx")
    assert data.groups == ("", "felines", "felines") and data.name == "animals"
    assert data.x.shape == (12, 5, 6, 1) and data.x.dtype == np.uint8
    assert data.x[:, 0, 0, 0].tolist() == [20, 21, 22, 23, 0, 1, 2, 3, 10, 11, 12, 13]
    assert data.origin is not None and data.origin[5] == "felines/cat/1.png"
    assert from_folder(folder, size=(3, 4)).x.shape == (12, 3, 4, 3)
    assert from_folder(folder, size=7, split="all").title == "animals/all"
    assert runs(data).support.x.shape == (2, 5, 6, 1)


def test_a_folder_for_each_split(tmp_path):
    for i, split in enumerate(("train", "test")):
        for label in "ab":
            picture(tmp_path / split / f"{split}-{label}" / "1.png", i)
    data = from_folder(tmp_path, split="test", name="two")
    assert data.classes == ("test-a", "test-b") and data.title == "two/test"
    assert data.groups == ("", "")
    assert data.origin is not None and data.origin[0] == "test/test-a/1.png"
    with pytest.raises(ValueError, match="split: .*none called 'val'; .*test, train"):
        from_folder(tmp_path, split="val")


def test_the_same_classes_in_each_split_are_not_two(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "cat" / "1.png", 0)
    assert from_folder(tmp_path, split="train").classes == ("cat",)
    with pytest.raises(
        ValueError, match="split: the class 'cat' is in .*split='train'"
    ):
        from_folder(tmp_path)


def test_a_table_of_images(folder):
    rows = "path,label,split\ndog/1.png,d,train\ndog/0.png,d,train\n"
    rows += "felines/cat/3.png,big/c,test\n./felines/lynx/0.png,l,train\n"
    listed = written(folder, rows)
    data = from_folder(folder, mode="L", table=listed, split="train")
    assert data.classes == ("d", "l") and data.x[:, 0, 0, 0].tolist() == [20, 21, 10]
    assert data.origin is not None
    assert data.origin.tolist() == ["dog/0.png", "dog/1.png", "felines/lynx/0.png"]
    whole = from_folder(folder, table=listed)
    assert whole.classes == ("big/c", "d", "l") and whole.groups == ("big", "", "")


LISTED = [
    ("a/1.png,x", ValueError, "table: .*no column 'label'; expected one of path"),
    ("path,label\n../1.png,x", ValueError, "line 2: the path '../1.png' leads out"),
    ("path,label\n/1.png,x", ValueError, "leads out of the folder"),
    ("path,label\nC:\\1.png,x", ValueError, "leads out of the folder"),
    ("path,label\na\\..\\..\\1.png,x", ValueError, "leads out of the folder"),
    ("path,label\ndog/1.png,x\ndog/9.png,x", FileNotFoundError, "1 of 2 .*dog/9.png;"),
    ("path,label\ndog/1.png,x\n./dog/1.png,x", ValueError, "line 3: .*listed twice"),
    ("path,label\ndog/1.png,", ValueError, "line 2: column 'label' is empty"),
    (
        "path,label,split\ndog/1.png,x,train\ndog/2.png,x,test",
        ValueError,
        r"line 3: class 'x' is in the splits train and test.*leakage",
    ),
]


@pytest.mark.parametrize(("rows", "error", "sentence"), LISTED)
def test_wrong_tables_of_images(folder, rows, error, sentence):
    rows = rows if "path" in rows else "path\n" + rows.split(",")[0]
    with pytest.raises(error, match=sentence):
        from_folder(folder, table=written(folder, rows))


def test_a_split_that_no_row_has(folder):
    listed = written(folder, "path,label,split\ndog/1.png,x,train")
    with pytest.raises(ValueError, match="split: .*no row of 'test'; .* of train"):
        from_folder(folder, table=listed, split="test")
    listed = written(folder, "path,label\ndog/1.png,x")
    with pytest.raises(ValueError, match="table: .*no column 'split'"):
        from_folder(folder, table=listed, split="test")


def other_size(root):
    picture(root / "dog" / "9.png", 0, (9, 8))


def empty_class(root):
    (root / "bird").mkdir()
    (root / "bird" / "notes.txt").write_text("")


def no_class(root):
    for path in sorted(root.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "notes.txt").write_text("")


def circle(root):
    (root / "dog" / "again").symlink_to(root)


def broken(root):
    (root / "dog" / "2.png").write_bytes(b"GIF8")


def link_to_nothing(root):
    (root / "dog" / "9.png").symlink_to(root / "nothing")


FOLDERS = [
    (
        other_size,
        r"dog/0.png is 5 x 6 and .*dog/9.png is 8 x 9; .*size=\(height, width",
    ),
    (empty_class, r"bird has no image \(1 other files, e.g. notes.txt\)"),
    (
        no_class,
        r"animals has no class \(1 other files, e.g. notes.txt\); expected a fo",
    ),
    (lambda root: picture(root / "1.png", 0), "1 images lie in .* itself.*table="),
    (circle, "dog/again is a link to"),
    (broken, "dog/2.png: not an image of .*fetch it again"),
    (link_to_nothing, "dog/9.png can't be read"),
]


@pytest.mark.parametrize(("harm", "sentence"), FOLDERS)
def test_wrong_folders(folder, harm, sentence):
    harm(folder)
    with pytest.raises(ValueError, match=sentence):
        from_folder(folder)


def test_folders_that_are_not_there_or_closed(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere; expected"):
        from_folder(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere.csv: there is no such file"):
        from_folder(folder, table=folder / "nowhere.csv")

    def closed(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(ValueError, match=r"can't be read \(Permission denied\)"):
        from_folder(folder)


def test_a_table_of_classes(table):
    data = from_csv(table)
    assert data.classes == ("cat", "dog") and data.name == "table"
    assert data.x.dtype == np.float32  # the column of text is left out
    assert data.of("dog")[0].tolist() == [3, -40]
    assert from_csv(table, features=["b"]).x.shape == (8, 1)
    grouped = from_csv(table, features=["a"], group="note", split="all")
    assert grouped.groups == ("x", "y") and grouped.title == "table/all"
    assert runs(data).query.x.shape == (4, 2)


def test_a_table_of_tasks(tmp_path):
    path = written(tmp_path, "user,t,y,z\n" + "7,0.5,1,2\n3,1.5,3,4\n" * 3)
    data = from_csv(path, task="user", target="y")
    assert data.classes == ("3", "7") and data.x.shape == (6, 2)
    assert data.targets.tolist() == [[3]] * 3 + [[1]] * 3
    data = from_csv(path, task="user", target=["z", "y"], features=["t"])
    assert data.targets[0].tolist() == [4, 3] and data.targets.dtype == np.float32


def test_labels_keep_their_spelling(tmp_path):
    classes = lambda *labels: (
        from_csv(
            written(tmp_path, "label,a\n" + "".join(f"{each},1\n" for each in labels))
        ).classes
    )
    assert classes(10, 9, -1) == ("-1", "9", "10")
    assert classes("01", 1) == ("01", "1")
    assert classes("1.5", "b ", " b") == ("1.5", "b")
    assert classes("9" * 30, 1) == ("1", "9" * 30)


def test_a_table_may_be_written_by_others(tmp_path):
    text = '\ufefflabel,"a b",c\r\n"x, y",1,2\r\n\r\nz, 3 ,4\r\n'
    data = from_csv(written(tmp_path, text))
    assert data.classes == ("x, y", "z") and data.of("z").tolist() == [[3, 4]]


TABLES = [
    (b"label,a\nx,\xff\n", {}, "table.csv, line 2: bytes that are not UTF-8"),
    ("label,a\nx,\0\n", {}, "line 2: a NUL byte"),
    ("", {}, "the file is empty"),
    ("label,a\n", {}, "the table has no row"),
    ("label;a\nx;1\n", {}, "expected names separated by commas"),
    ("label,a\nx,1,2\n", {}, "line 2: expected 2 fields as in the first row, got 3"),
    ("label,a,b\nx,1\n", {}, "line 2: expected 3 fields .* got 2"),
    ('label,a\nx,"1\n', {}, "line 2: not a row of CSV"),
    ("label,a,a\nx,1,2\n", {}, "two columns are called 'a'"),
    (",label,a\n0,x,1\n", {}, "column 1 has no name; .*index=False"),
    ("labels,a\nx,1\n", {}, "label: .*no column 'label'; .*did you mean 'labels'"),
    ("label,a\nx,1\ny,\n", {}, "line 3: column 'a' is empty there .features"),
    ("label,a\nx,1\n,2\n", {}, "line 3: column 'label' is empty there .label"),
    ("label,a\nx,1\ny,ten\n", {}, "line 3: column 'a' has the text 'ten'"),
    ("label,a\nx,1\ny,nan\n", {}, "line 3: column 'a' is nan .*finite"),
    ("label,a\nx,1\ny,1e39\n", {}, "line 3: column 'a' is 1e.39 .*32 bits"),
    ("label,a\n1.0,1\n2,1\n", {}, r"label: .*has floating numbers \(1.0\)"),
    ("label,a\nx,b\n", {}, "features: .*no other column of numbers"),
    ("label,a\nx,b\n", {"features": ["a"]}, "has the text 'b'"),
    ("label,a\nx,1\n", {"features": ["label"]}, "'label' is the label too"),
    ("label,a\nx,1\n", {"features": ["a", "a"]}, "features: expected each column once"),
    ("label,a\nx,1\n", {"label": "a", "task": "label"}, "got both; leave one out"),
    (
        "label,a\nx,1\n",
        {"task": "label"},
        "target: expected task= and target= together",
    ),
    ("label,a\nx,1\n", {"task": "label", "target": "label"}, "target: expected other"),
    ("label,a,b\nx,1,p\nx,1,q\n", {"group": "b"}, "class 'x' is in 'p' and 'q'"),
]


@pytest.mark.parametrize(("text", "given", "sentence"), TABLES)
def test_wrong_tables(tmp_path, text, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_csv(written(tmp_path, text), **given)


def test_tables_that_are_not_there(tmp_path):
    for read in (from_csv, from_parquet):
        with pytest.raises(FileNotFoundError, match="nowhere: there is no such file"):
            read(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="can't be read"):
            read(tmp_path)


def parquet(path: Path, columns: dict) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table(columns), path)
    return path


def test_a_parquet_table(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    columns = {
        **{"label": arrow.array(list("babaab")).dictionary_encode()},
        **{"u": [1, 2, 3, 4, 5, 6], "v": [0.5] * 6, "w": [True, False] * 3},
        **{"when": [date(2026, 1, 1)] * 6, "note": ["n"] * 6},
    }
    path = parquet(tmp_path / "t.parquet", columns)
    data = from_parquet(path)
    assert data.classes == ("a", "b") and data.of("b")[1].tolist() == [3, 0.5, 1]
    assert data.name == "t" and runs(data).support.x.shape == (2, 3)
    tasks = from_parquet(path, task="u", target="v", features=["w"])
    assert len(tasks.classes) == 6 and tasks.targets.shape == (6, 1)


COLUMNS = [
    ({"label": [1.0, 2.0], "a": [1, 2]}, {}, "label: .*floating numbers"),
    ({"label": ["x", None], "a": [1, 2]}, {}, "row 1: column 'label' is empty"),
    ({"label": ["x", "y"], "a": [1, None]}, {}, "row 1: column 'a' is empty"),
    ({"label": ["x", "y"], "a": [1.0, np.nan]}, {}, "row 1: column 'a' is nan"),
    ({"label": [[1], [2]], "a": [1, 2]}, {}, "label: .*'label' is of type list"),
    ({"label": ["x"], "a": [1]}, {"group": "c"}, "group: .*no column 'c'"),
    ({"label": [], "a": []}, {}, "the table has no row"),
]


@pytest.mark.parametrize(("columns", "given", "sentence"), COLUMNS)
def test_wrong_parquet_tables(tmp_path, columns, given, sentence):
    path = parquet(tmp_path / "t.parquet", columns)
    with pytest.raises(ValueError, match=sentence):
        from_parquet(path, **given)


class Loaded:
    """Behaves as `datasets.Dataset` does."""

    def __init__(self, rows, names=None):
        self.rows = rows
        self.features = {"label": SimpleNamespace(names=names)} if names else {}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def grey(value, size=(6, 5)):
    return Image.new("L", size, value)


def test_a_set_of_images_that_datasets_loaded():
    rows = [{"image": grey(i), "label": i % 2} for i in range(6)]
    rows[0]["label"] = np.array(0)  # as with_format("numpy") gives
    data = from_huggingface(Loaded(rows, ["cat", "ant"]), mode="L", split="train")
    assert data.classes == ("ant", "cat") and data.title == "huggingface/train"
    assert data.x.shape == (6, 5, 6, 1) and data.of("ant")[:, 0, 0, 0].tolist() == [
        *(1, 3, 5)
    ]
    assert runs(data).support.x.shape == (2, 5, 6, 1)
    rows = [{"img": np.full((4, 4, 3), i, np.uint8), "label": f"{i}"} for i in range(3)]
    data = from_huggingface(Loaded(rows), image="img", size=2)
    assert data.x.shape == (3, 2, 2, 3) and data.of("2").max() == 2


def test_a_set_of_tokens_or_numbers_that_datasets_loaded():
    rows = [{"ids": [i, 7, 0], "n": 0.5, "label": i % 2} for i in range(6)]
    data = from_huggingface(Loaded(rows), x="ids")
    assert data.x.dtype == np.int32 and data.of("1")[1].tolist() == [3, 7, 0]
    data = from_huggingface(Loaded(rows), x=["ids", "n"])
    assert data.x["n"].shape == (6, 1) and data.x["n"].dtype == np.float32
    assert runs(data).support.x["ids"].shape == (2, 3)


LOADED = [
    ([{"label": 0}], {}, "image: example 0 .*no column 'image'; .*image= or x="),
    ([{"image": grey(0)}], {}, "label: example 0 .*no column 'label'"),
    ([{"image": None, "label": 0}], {}, "image: .* of example 0 is empty"),
    ([{"image": grey(0), "label": -1}], {}, "label: .*example 0 is -1; .*filter"),
    (
        [{"image": grey(0, (6, 5 + i)), "label": 0} for i in range(2)],
        {},
        r"image of example 0 is 5 x 6 and .* example 1 is 6 x 6; .*size=",
    ),
    ([{"image": np.zeros((2, 2)), "label": 0}], {}, "in 0..255, got float64"),
    ([{"image": [1, 2], "label": 0}], {}, r"\[height, width.*got shape \(2,\)"),
    ([{"image": "a.png", "label": 0}], {}, "image: .* expected numbers, got 'a.png'"),
    (
        [{"n": [1] * (1 + i), "label": 0} for i in range(2)],
        {"x": "n"},
        r"x: column 'n' has shape \(1,\) in example 0 .*padding",
    ),
    ([{"n": "text", "label": 0}], {"x": "n"}, "x: column 'n': expected numbers"),
    ([], {}, "dataset: expected a split .*without examples"),
    ([[1, 2]], {}, r"dataset: expected .*examples like \[1, 2\]"),
]


@pytest.mark.parametrize(("rows", "given", "sentence"), LOADED)
def test_wrong_sets_that_datasets_loaded(rows, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_huggingface(Loaded(rows, ["cat"]), **given)


def test_all_splits_at_once_are_refused():
    with pytest.raises(ValueError, match="dataset: .*take one of its splits"):
        from_huggingface({"train": Loaded([])})


def test_the_package_datasets_itself():
    datasets = pytest.importorskip("datasets")
    columns = {"ids": [[1, 2], [3, 4]], "label": ["a", "b"]}
    data = from_huggingface(datasets.Dataset.from_dict(columns), x="ids")
    assert data.x.tolist() == [[1, 2], [3, 4]]


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """The content cut off, or with some bytes changed or one part gone."""
    kind, where = random.integers(4), int(random.integers(len(content)))
    if kind == 0:
        return content[:where]
    if kind == 1:
        return content[:where] + content[where + int(random.integers(1, 40)) :]
    changed = bytearray(content)
    for place in random.integers(len(content), size=1 if kind == 2 else 20):
        changed[place] = random.integers(256)
    return bytes(changed)


def outcomes(file: Path, read, check, times: int) -> set[str]:
    """Damage a file and read it, `times` times: a sentence, or a data set of one shape."""
    content, found = file.read_bytes(), set()
    for seed in range(times):
        file.write_bytes(damaged(content, np.random.default_rng(seed)))
        try:
            data = read()
        except (ValueError, FileNotFoundError) as error:
            assert type(error) in (ValueError, FileNotFoundError), (seed, error)
            assert len(str(error)) > 30 and ";" in str(error), (seed, error)
            found.add("refused")
        else:
            assert isinstance(data, Dataset) and check(data.x), seed
            assert data.counts.sum() == len(data.x)
            found.add("read")
    return found


def numbers(x) -> bool:
    return x.dtype == np.float32 and x.ndim == 2 and bool(np.isfinite(x).all())


def pixels(*shape):
    return lambda x: x.dtype == np.uint8 and x.shape[1:] == shape


def test_damaged_tables(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as opened:
        rows = [[f"c{i % 3}", i / 7, -i, "n, n"] for i in range(30)]
        csv.writer(opened).writerows([["label", "a", "b", "note"], *rows])
    assert outcomes(path, partial(from_csv, path), numbers, 250) == {"read", "refused"}


def test_damaged_parquet(tmp_path):
    columns = {"label": [f"c{i % 3}" for i in range(300)], "a": np.arange(300) / 7}
    path = parquet(tmp_path / "t.parquet", columns)
    assert outcomes(path, partial(from_parquet, path), numbers, 250) >= {"refused"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff"])
def test_damaged_images(tmp_path, suffix):
    path = tmp_path / "a" / f"1.{suffix}"
    picture(path, 0)
    noise = np.random.default_rng(0).integers(256, size=(9, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    read = partial(from_folder, tmp_path, size=4)
    assert outcomes(path, read, pixels(4, 4, 3), 80) >= {"refused"}


def test_damaged_archives(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "images_background.zip"
    drawing = io.BytesIO()
    Image.new("1", (105, 105), 1).save(drawing, "PNG")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for i in range(20):
            name = f"images_background/Tengwar/character01/0001_{i + 1:02d}.png"
            made.writestr(name, drawing.getvalue())
    read = partial(jm.data.omniglot, tmp_path)
    assert outcomes(path, read, pixels(28, 28, 1), 100) >= {"refused"}


def test_an_image_that_declares_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 20)
    picture(tmp_path / "a" / "1.png", 0)
    with pytest.raises(ValueError, match="declares 30 pixels, more than 20"):
        from_folder(tmp_path)
