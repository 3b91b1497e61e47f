"""Named image sets: published splits, right pixels in right classes, and what is said of
files that are missing, altered or dangerous."""

import hashlib
import importlib
import io
import itertools
import shutil
import tarfile
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

import jaxmeta as jm
from jaxmeta import data
from jaxmeta.data import cifar100, named

pytestmark = pytest.mark.slow  # what it says depends on no version

# the functions have the names of their modules
mini, tiered, birds = (
    importlib.import_module(f"jaxmeta.data.{name}")
    for name in ("mini_imagenet", "tiered_imagenet", "cub")
)
PUBLISHED = {
    "cifar_fs": (64, 16, 20),
    "fc100": (60, 20, 20),
    "mini_imagenet": (64, 16, 20),
    "tiered_imagenet": (351, 97, 160),
    "cub": (100, 50, 50),
    "omniglot_metadataset": (25, 5, 20),
}
GROUPS = {
    "cifar_fs": (20, 11, 13),
    "fc100": (12, 4, 4),
    "tiered_imagenet": (20, 6, 8),
}
IMAGES = {"tiered_imagenet": (448_695, 124_261, 206_209), "cub": (5_885, 2_950, 2_953)}


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path_factory.mktemp("cache")))


def classes(listed) -> list[str]:
    """The classes of a split, whether its list has groups, counts or neither."""
    if not isinstance(listed, dict) or not isinstance(next(iter(listed.values())), int):
        grouped = listed.values() if isinstance(listed, dict) else [listed]
        return [name for group in grouped for name in group]
    return list(listed)


@pytest.mark.parametrize("name", PUBLISHED)
def test_splits_are_disjoint_and_as_long_as_published(name):
    lists = [named.published(name, split) for split in named.SPLITS]
    names = [classes(listed) for listed in lists]
    assert tuple(map(len, names)) == PUBLISHED[name]
    assert len({n for part in names for n in part}) == sum(PUBLISHED[name])
    if name in GROUPS:
        assert tuple(map(len, lists)) == GROUPS[name]
        shared_groups = set.intersection(*map(set, lists))
        assert bool(shared_groups) == (
            name == "cifar_fs"
        )  # drawn without regard to them
    if name in IMAGES:
        groups = [[part] if name == "cub" else part.values() for part in lists]
        totals = [sum(sum(group.values()) for group in part) for part in groups]
        assert tuple(totals) == IMAGES[name]


def test_a_list_says_where_it_is_from():
    for name in PUBLISHED:
        assert "arXiv" in named.published(name, "source") or name == "mini_imagenet"


def test_birds_are_split_by_their_numbers():
    for split, rest in {"train": (1, 3), "validation": (2,), "test": (0,)}.items():
        numbers = [int(name[:3]) for name in named.published("cub", split)]
        assert all(n % 4 in rest for n in numbers)  # counted from 1


def first_pixels(made, key=0):
    """A task of the data set: {class: the values of the first pixel of its examples}."""
    ways = len(made.classes)
    shots = int(made.counts.min()) - 1
    sampler = jm.tasks.episodes(made, ways=ways, shots=shots, queries=1)
    task = sampler.sample(jax.random.key(key))
    pixels = np.asarray(task.support.x)[:, 0, 0]
    labels = np.asarray(task.support.y)
    return [np.round(pixels[labels == k] * 255) for k in range(ways)]


# CIFAR-100, with 2 images a class in train.bin and 1 in test.bin


def tiny_cifar() -> dict[str, bytes]:
    """Image j of class k: red plane k, green plane j, blue plane its row's number."""
    fine_of = {
        coarse: fine
        for split in named.SPLITS
        for coarse, fine in named.published("fc100", split).items()
    }
    coarse_names = sorted(fine_of)
    fine_names = sorted(name for fine in fine_of.values() for name in fine)
    group = {name: coarse for coarse, fine in fine_of.items() for name in fine}

    def record(k, j):
        rows = np.repeat(np.arange(32, dtype=np.uint8), 32)
        planes = [np.full(1024, k, np.uint8), np.full(1024, j, np.uint8), rows]
        labels = [coarse_names.index(group[fine_names[k]]), k]
        return bytes(labels) + np.concatenate(planes).tobytes()

    return {
        "train.bin": b"".join(record(k, j) for j in range(2) for k in range(100)),
        "test.bin": b"".join(record(k, 2) for k in range(100)),
        "coarse_label_names.txt": "\n".join(coarse_names).encode() + b"\n",
        "fine_label_names.txt": "\n".join(fine_names).encode() + b"\n\n",
        "fine_label_names.txt~": b"a copy that an editor left",  # as in the published one
    }


TINY = tiny_cifar()


@pytest.fixture
def small_cifar(monkeypatch):
    monkeypatch.setattr(cifar100, "PER_CLASS", 3)
    sizes = {"train.bin": 200 * 3074, "test.bin": 100 * 3074}
    monkeypatch.setattr(cifar100, "BYTES", sizes)
    monkeypatch.setattr(cifar100, "MD5", None)


def packed(root, contents, extra=()):
    path = root / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as made:
        folder = tarfile.TarInfo("cifar-100-binary")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
        for member in extra:
            made.addfile(member)
    return path


def unpacked(root, contents):
    folder = root / "cifar-100-binary"
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def test_the_published_sizes_and_checksum():
    assert cifar100.BYTES == {"train.bin": 153_700_000, "test.bin": 30_740_000}
    assert cifar100.MD5 == "03b5dce01913d631647c71ecec9e9cb8"


@pytest.mark.parametrize("name", ["cifar_fs", "fc100"])
@pytest.mark.parametrize("put", [packed, unpacked])
def test_cifar_has_each_image_in_its_class(tmp_path, small_cifar, put, name):
    put(tmp_path, TINY)
    fine = TINY["fine_label_names.txt"].decode().split()
    for split, size in zip(named.SPLITS, PUBLISHED[name], strict=True):
        made = getattr(data, name)(tmp_path, split)
        listed = named.published(name, split)
        assert (made.name, made.split, len(made.classes)) == (name, split, size)
        assert made.counts.tolist() == [3] * size
        of = {f: coarse for coarse, group in listed.items() for f in group}
        assert made.groups == tuple(of[f] for f in made.classes)
    sampler = jm.tasks.episodes(made, ways=20, shots=2, queries=1)
    task = sampler.sample(jax.random.key(0))
    images = np.concatenate([task.support.x, task.query.x])
    images, labels = (
        np.round(images * 255),
        np.concatenate([task.support.y, task.query.y]),
    )
    assert images.shape == (60, 32, 32, 3)
    assert (images[..., 2] == np.arange(32)[:, None]).all()  # rows from top to bottom
    seen = set()
    for label in range(20):
        red, green = images[labels == label][..., 0], images[labels == label][..., 1]
        assert (red == red[0, 0, 0]).all()
        assert sorted(green[:, 0, 0].tolist()) == [0, 1, 2]  # of train and of test
        seen.add(fine[int(red[0, 0, 0])])
    assert seen == set(made.classes)


def test_the_unpacked_folder_itself_is_a_root(tmp_path, small_cifar):
    folder = unpacked(tmp_path, TINY)
    assert data.fc100(folder, "test").classes == data.fc100(tmp_path, "test").classes


def link(name="cifar-100-binary/x", kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def without(name):
    return {k: v for k, v in TINY.items() if k != name}


ALTERED = {
    "short": (TINY | {"test.bin": TINY["test.bin"][:-1]}, "test.bin has 307,399 bytes"),
    "long": (
        TINY | {"train.bin": TINY["train.bin"] * 2},
        "expected 614,800; it is trun",
    ),
    "empty": (
        TINY | {"fine_label_names.txt": b""},
        "has 0 bytes, expected 1 to 100,000",
    ),
    "names": (
        TINY | {"fine_label_names.txt": b"a b"},
        "20 superclasses .*got 20 and 2",
    ),
    "other": (
        TINY
        | {"fine_label_names.txt": TINY["fine_label_names.txt"].replace(b"bee", b"B")},
        "no class bee of superclass insects, so they are not CIFAR-100's",
    ),
    "label": (
        TINY | {"test.bin": b"\x00\xff" + TINY["test.bin"][2:]},
        "class 0 have 2 images, expected 3|class 255 have 1 images, expected 3",
    ),
    "group": (
        TINY | {"test.bin": b"\x13" + TINY["test.bin"][1:]},
        "class 0 have . images, expected 3 of each",
    ),
}


@pytest.mark.parametrize(("contents", "sentence"), ALTERED.values(), ids=ALTERED)
def test_altered_cifar_files_are_refused(tmp_path, small_cifar, contents, sentence):
    for put in (packed, unpacked):
        put(tmp_path, contents)
        with pytest.raises(ValueError, match=f"fc100: .*({sentence}).*fetch .* again"):
            data.fc100(tmp_path, "test")


@pytest.mark.parametrize(
    "member",
    [
        *(link(), link(kind=tarfile.LNKTYPE), link(kind=tarfile.CHRTYPE)),
        *(tarfile.TarInfo(n) for n in ("/etc/x", "cifar-100-binary/../../x", "else/x")),
        *(tarfile.TarInfo(n) for n in ("C:/x", "cifar-100-binary/..\\..\\x")),
    ],
    ids=lambda member: f"{member.name} {member.type}",
)
def test_unsafe_members_are_refused(tmp_path, small_cifar, member):
    packed(tmp_path, TINY, [member])
    with pytest.raises(ValueError, match="the unsafe member .*fetch it again"):
        data.cifar_fs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-100-binary.tar.gz"]


def test_what_is_said_where_cifar_is_not(tmp_path, small_cifar, monkeypatch):
    with pytest.raises(FileNotFoundError, match="cifar_fs: no cifar-100-binary.tar.gz"):
        data.cifar_fs(tmp_path)
    python = tmp_path / "cifar-100-python.tar.gz"
    python.write_bytes(b"")
    sentence = (
        "is a pickle, which may run any code .*binary version, cifar-100-binary.tar"
    )
    with pytest.raises(ValueError, match=sentence):
        data.fc100(tmp_path)
    path = packed(tmp_path, TINY)
    content = path.read_bytes()
    for part in (0, 100, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:part])
        with pytest.raises(
            ValueError, match="truncated or not a tar.gz.*fetch it again"
        ):
            data.fc100(tmp_path)
    packed(tmp_path, without("train.bin"))
    with pytest.raises(ValueError, match="has no cifar-100-binary/train.bin; fetch it"):
        data.fc100(tmp_path)
    path.write_bytes(content)
    monkeypatch.setattr(cifar100, "MD5", hashlib.md5(content).hexdigest())
    assert len(data.fc100(tmp_path).classes) == 60
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(
        ValueError, match="not the published archive: its MD5 is .*expec"
    ):
        data.fc100(tmp_path)
    unpacked(tmp_path, TINY)  # is preferred
    assert len(data.fc100(tmp_path).classes) == 60
    (tmp_path / "cifar-100-binary/test.bin").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no file .*test\.bin; unpack .* again"
    ):
        data.fc100(tmp_path)
    for call in (data.cifar_fs, data.fc100):
        with pytest.raises(
            ValueError, match="split: expected one of train, validation, te"
        ):
            call(tmp_path, "val")


# folders of images


def picture(path, value, size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    Image.new("RGB", size, (value, 255 - value, 0)).save(path, **options)


def fill(folder, counts, suffix=".jpg"):
    """Class k of the dict has its number of images, all with red 5 k."""
    for k, (name, count) in enumerate(counts.items()):
        for j in range(count):
            picture(folder / name / f"{name}_{j}{suffix}", 5 * k)


def check_pixels(made, names):
    """Class k of the names has red 5 k in each of its examples."""
    for k, name in {0: names[0], len(names) - 1: names[-1], 1: names[1]}.items():
        i = made.classes.index(name)
        colours = made.of(i)[:, 0, 0].astype(float)
        np.testing.assert_allclose(colours[:, 0], 5 * k, atol=3)
        np.testing.assert_allclose(colours[:, 1], 255 - 5 * k, atol=3)


@pytest.fixture
def small_mini(monkeypatch, own_cache):
    monkeypatch.setattr(mini, "PER_CLASS", 2)
    return {name: 2 for name in named.published("mini_imagenet", "validation")}


@pytest.mark.parametrize("inside", ["", "train", "val"])
def test_mini_imagenet_of_class_folders(tmp_path, small_mini, inside):
    fill(tmp_path / inside, small_mini)
    (tmp_path / inside / "n01855672/notes.txt").write_text("no image")
    (tmp_path / inside / "n01855672/._n01855672_0.jpg").write_text("of a Mac")
    made = data.mini_imagenet(tmp_path, "validation", 6)
    assert made.classes == tuple(sorted(small_mini)) and set(made.counts) == {2}
    assert (made.name, made.split) == ("mini_imagenet", "validation")
    check_pixels(made, list(small_mini))


@pytest.fixture
def table(tmp_path, small_mini):
    """images/ and val.csv, as they are handed around."""
    rows = ["filename,label"]
    for k, name in enumerate(small_mini):
        for j in range(2):
            picture(tmp_path / f"images/{name}0000000{j}.jpg", 5 * k)
            rows.append(f"{name}0000000{j}.jpg,{name}")
    (tmp_path / "val.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_mini_imagenet_of_a_table(table, small_mini):
    made = data.mini_imagenet(table, "validation", 6)
    assert made.classes == tuple(sorted(small_mini)) and set(made.counts) == {2}
    check_pixels(made, list(small_mini))


def test_mini_imagenet_says_what_is_missing(tmp_path, small_mini):
    call = lambda: data.mini_imagenet(tmp_path, "validation", 6)
    with pytest.raises(
        FileNotFoundError,
        match=r"16 of 16 class folders are missing, the first is n0185",
    ):
        call()
    fill(tmp_path, small_mini)
    first, *others = small_mini
    (tmp_path / first / f"{first}_1.jpg").unlink()
    with pytest.raises(
        ValueError, match=f"class {first} has 1 images, expected 2; which"
    ):
        call()
    picture(tmp_path / others[0] / "more.jpg", 1)
    with pytest.raises(
        ValueError, match="expected 2, and 1 more classes differ; which"
    ):
        call()
    shutil.rmtree(tmp_path / first)
    with pytest.raises(FileNotFoundError, match=f"1 of 16 .* the first is {first}, in"):
        call()


def test_a_table_of_mini_imagenet_says_what_is_missing(table, small_mini):
    call = lambda: data.mini_imagenet(table, "validation", 6)
    good = (table / "val.csv").read_text()
    name = next(iter(small_mini))
    (table / f"images/{name}00000001.jpg").unlink()
    with pytest.raises(
        ValueError,
        match=f"class {name} has 1 images, expected 2; 1 of 32 files that val.csv names "
        f"are missing in .*images, the first is {name}00000001.jpg",
    ):
        call()
    (table / "val.csv").write_text(good.replace(f"{name}00000001", "../../secret"))
    with pytest.raises(
        ValueError, match=r"missing in .*the first is \.\./\.\./secret.jpg"
    ):
        call()
    (table / "val.csv").write_text(good + "a.jpg,n99999999\n")
    with pytest.raises(
        ValueError, match="names the class n99999999, which is not in this"
    ):
        call()
    (table / "val.csv").write_text(good.replace("label", "class", 1))
    with pytest.raises(ValueError, match="columns filename,label, got filename,class"):
        call()
    (table / "val.csv").write_text("")
    with pytest.raises(ValueError, match="columns filename,label, got none"):
        call()
    (table / "val.csv").write_text(good.partition("\n")[0])
    with pytest.raises(
        ValueError, match="has 0 images, expected 2.*15 more.*so it is in"
    ):
        call()
    (table / "images").rename(table / "pictures")
    with pytest.raises(
        FileNotFoundError, match="no folder .*images for the images of val"
    ):
        call()


def test_a_broken_image_is_named_and_a_changed_one_read_anew(tmp_path, small_mini):
    fill(tmp_path, small_mini)
    call = lambda: data.mini_imagenet(tmp_path, "validation", 6)
    check_pixels(call(), list(small_mini))
    broken = tmp_path / "n01855672/n01855672_1.jpg"
    content = broken.read_bytes()
    for part, sentence in ((0, "the file is empty"), (300, "truncated or broken")):
        broken.write_bytes(content[:part])
        with pytest.raises(
            ValueError, match=f"mini_imagenet: .*n01855672_1.jpg: .*{sentence}"
        ):
            call()
    for image in broken.parent.iterdir():
        picture(image, 200)
    colours = [float(np.median(c[:, 0])) for c in first_pixels(call())]
    assert max(colours) > 190
    for (
        image
    ) in broken.parent.iterdir():  # the cache is of these files, not of the name
        picture(image, 210)
    assert max(float(np.median(c[:, 0])) for c in first_pixels(call())) > 205


def test_what_a_camera_noted_wrongly_warns_nobody(tmp_path, small_mini):
    fill(tmp_path, small_mini)
    name = next(iter(small_mini))
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01\x1a\x00\x05"
    image = Image.new("RGB", (12, 8), (0, 255, 0))
    image.save(tmp_path / name / f"{name}_0.jpg", exif=exif, quality=95)
    check_pixels(data.mini_imagenet(tmp_path, "validation", 6), list(small_mini))


def test_tiered_imagenet_has_superclasses(tmp_path, monkeypatch, own_cache):
    tree = {
        "n00020090": {"n03314780": 2, "n07565083": 3},
        "n01473806": {"n01440764": 2},
    }
    monkeypatch.setattr(tiered, "published", lambda name, split: tree)
    counts = {"n03314780": 2, "n07565083": 3, "n01440764": 2}
    with pytest.raises(
        FileNotFoundError,
        match="3 of 3 class folders .*n01530575.tar unpacked to a fol",
    ):
        data.tiered_imagenet(tmp_path, "test", 6)
    fill(tmp_path / "train", counts, ".JPEG")
    made = data.tiered_imagenet(tmp_path, "test", 6)
    assert made.classes == ("n01440764", "n03314780", "n07565083")
    assert made.groups == ("n01473806", "n00020090", "n00020090")
    assert made.counts.tolist() == [2, 2, 3]
    check_pixels(made, list(counts))
    (tmp_path / "train/n07565083/n07565083_2.JPEG").unlink()
    with pytest.raises(
        ValueError, match="class n07565083 has 2 images, expected 3; unpa"
    ):
        data.tiered_imagenet(tmp_path, "test", 6)


@pytest.mark.parametrize("root", ["", "CUB_200_2011", "CUB_200_2011/images"])
def test_cub_is_read_as_it_is_unpacked(tmp_path, monkeypatch, own_cache, root):
    counts = {"001.Black_footed_Albatross": 3, "003.Sooty_Albatross": 2}
    monkeypatch.setattr(birds, "published", lambda name, split: counts)
    with pytest.raises(
        FileNotFoundError, match="2 of 2 class folders .*CUB_200_2011.tgz"
    ):
        data.cub(tmp_path / root)
    fill(tmp_path / "CUB_200_2011/images", counts)
    made = data.cub(tmp_path / root, "train", 5)
    assert made.classes == tuple(counts) and made.counts.tolist() == [3, 2]
    assert (made.name, made.split) == ("cub", "train")
    check_pixels(made, list(counts))


@pytest.mark.parametrize("call", [data.mini_imagenet, data.tiered_imagenet, data.cub])
def test_wrong_arguments_of_folders(tmp_path, call):
    with pytest.raises(ValueError, match="split: expected one of train"):
        call(tmp_path, "novel")
    with pytest.raises(ValueError, match="size: expected a whole number >= 1, got 0"):
        call(tmp_path, "train", 0)
    with pytest.raises(ValueError, match="root: expected a path, got None"):
        call(None)


def test_meta_dataset_lists_every_alphabet_of_omniglot():
    parts = ("train", "val", "test")
    characters = [named.published("omniglot_vinyals", part) for part in parts]
    alphabets = [name.split("/")[0] for part in characters for name in part]
    lists = [named.published("omniglot_metadataset", split) for split in named.SPLITS]
    assert {a for part in lists for a in part} == set(alphabets)
    sizes = [sum(map(alphabets.count, part)) for part in lists]
    assert sizes == [883, 81, 659]
    largest = max(
        map(alphabets.count, lists[1])
    )  # validation has the smallest of its 30
    assert largest == 20 < min(map(alphabets.count, lists[0]))


def test_omniglot_in_the_split_of_meta_dataset(tmp_path, own_cache):
    drawn = io.BytesIO()
    Image.new("1", (105, 105), 1).save(drawn, "PNG")
    alphabets = {"background": ("Tagalog", "Balinese"), "evaluation": ("Tengwar",)}
    for part, names in alphabets.items():
        with zipfile.ZipFile(tmp_path / f"images_{part}.zip", "w") as made:
            for name, d in itertools.product(names, range(20)):
                entry = f"images_{part}/{name}/character01/0001_{d:02d}.png"
                made.writestr(entry, drawn.getvalue())
    splits = dict(zip(named.SPLITS, ("Balinese", "Tagalog", "Tengwar"), strict=True))
    for split, name in splits.items():
        made = data.omniglot(tmp_path, f"metadataset_{split}")
        assert made.classes == (f"{name}/character01",) and made.groups == (name,)
