"""Files of ratings: what is read of both editions, and what is said of broken ones."""

import jax
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.data.ratings import GENRES

FILES = {
    "users.dat": ["1::F::1::10::48067", "2::M::56::16::70072", "9::M::25::0::x"],
    "movies.dat": [
        "1::Toy Story (1995)::Animation|Children's|Comedy",
        "5::Misérables, Les (1995)::Drama|Musical",
        "7::One: a tale (1990)::Western",
    ],
    "ratings.dat": [
        *("2::7::4::978300760", "1::5::5::978300761", "1::1::3::978300762"),
        *("2::1::1::978300763", "2::5::2::978300764", "9::7::5::978300765"),
    ],
}


@pytest.fixture
def folder(tmp_path):
    for name, lines in FILES.items():
        write(tmp_path, name, lines)
    return tmp_path


def write(folder, name, lines, end="\n"):
    text = "".join(f"{line}\n" for line in lines)
    (folder / name).write_bytes(
        text.removesuffix("\n").encode("latin-1") + end.encode()
    )


def test_a_class_is_a_user(folder):
    data = jm.data.ratings(folder, least=1)
    assert data.classes == ("1", "2", "9") and data.counts.tolist() == [2, 3, 1]
    one, two = data.of("1"), data.of("2")
    assert one["item"].tolist() == [1, 0]
    assert one["user"].tolist() == [[0, 0, 10, 4]] * 2
    assert two["item"].tolist() == [2, 0, 1]
    assert two["user"].tolist() == [[1, 6, 16, 7]] * 3
    assert data.of("9")["user"].tolist() == [[1, 2, 0, 10]]  # no digit: the last region
    genres = [np.array(GENRES)[g > 0].tolist() for g in one["genres"]]
    assert genres == [["Drama", "Musical"], ["Animation", "Children's", "Comedy"]]
    assert data.targets.dtype == np.float32
    assert data.targets.tolist() == [[5], [3], [4], [1], [2], [5]]


def test_users_are_left_out_by_their_ratings(folder):
    assert jm.data.ratings(folder, least=2).classes == ("1", "2")
    assert jm.data.ratings(folder, least=2, most=2).classes == ("1",)
    with pytest.raises(
        ValueError, match=r"users with 13 to any number of ratings.* 1 to"
    ):
        jm.data.ratings(folder)


def test_lines_may_end_as_on_windows(folder):
    plain = jm.data.ratings(folder, least=1)
    for name in FILES:
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    other = jm.data.ratings(folder, least=1)
    jax.tree.map(np.testing.assert_array_equal, plain.x, other.x)


def test_tasks_are_users(folder):
    sampler = jm.tasks.by_task(jm.data.ratings(folder, least=2), queries=1)
    task = sampler.sample(jax.random.key(0))
    assert task.support.x["user"].shape == (2, 4)
    assert task.support.x["item"].dtype == np.int32
    assert task.query.y.shape == (1, 1)


BROKEN = [
    ("ratings.dat", 1, "1::5::5", r"ratings.dat, line 2: expected 4 fields .* got 3"),
    ("ratings.dat", 0, "3::7::4::9", r"line 1: user '3' is not in users.dat"),
    ("ratings.dat", 0, "2::8::4::9", r"line 1: movie '8' is not in movies.dat"),
    (
        "ratings.dat",
        2,
        "1::1::6::9",
        r"line 3: expected as rating one of 1, .* got '6'",
    ),
    ("ratings.dat", 2, "1::1::3.5::9", r"line 3: expected as rating .* got '3.5'"),
    ("ratings.dat", 2, "1::5::3::9", r"line 3: user 1 has rated movie 5 before"),
    ("users.dat", 1, "1::M::56::16::7", r"users.dat, line 2: user 1 is there twice"),
    ("users.dat", 0, "1::X::1::10::4", r"line 1: expected as gender one of F, M"),
    ("users.dat", 0, "1::F::2::10::4", r"line 1: expected as age one of 1, 18"),
    ("users.dat", 0, "1::F::1::21::4", r"line 1: expected as occupation one of 0"),
    ("users.dat", 0, "one::F::1::2::4", r"line 1: expected a whole number as UserID"),
    ("movies.dat", 2, "7::One::IMAX", r"movies.dat, line 3: expected as genre one of"),
]


@pytest.mark.parametrize(("name", "line", "text", "sentence"), BROKEN)
def test_a_broken_line_is_said_by_its_number(folder, name, line, text, sentence):
    lines = [*FILES[name]]
    lines[line] = text
    write(folder, name, lines)
    with pytest.raises(ValueError, match=sentence):
        jm.data.ratings(folder, least=1)


def test_a_truncated_or_missing_file_is_said(folder):
    write(folder, "ratings.dat", FILES["ratings.dat"], end="")
    with pytest.raises(
        ValueError, match=r"ratings.dat, line 6: the last line has no end"
    ):
        jm.data.ratings(folder, least=1)
    (folder / "ratings.dat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ratings.dat is empty"):
        jm.data.ratings(folder, least=1)
    (folder / "ratings.dat").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no file .*ratings.dat; expected users"
    ):
        jm.data.ratings(folder, least=1)


FLAGS = {"Animation": 3, "Comedy": 5, "Western": 18}


def film(number, *genres):
    """A line of u.item."""
    flags = ["0"] * 19
    for genre in genres:
        flags[FLAGS.get(genre, 0)] = "1"
    return "|".join([str(number), "A film (1995)", "01-Jan-1995", "", "url", *flags])


SMALL = {
    "u.user": [
        *("1|24|M|technician|85711", "2|53|F|other|T8H1N", "3|7|F|student|5"),
        "4|56|M|administrator|00000",
    ],
    "u.item": [film(1, "Animation", "Comedy"), film(5, "Western"), film(9, "unknown")],
    "u.data": ["2\t5\t3\t9", "1\t1\t5\t9", "1\t9\t1\t9", "3\t1\t2\t9", "4\t1\t4\t9"],
}


@pytest.fixture
def small(tmp_path):
    for name, lines in SMALL.items():
        write(tmp_path, name, lines)
    return tmp_path


def test_the_other_edition_is_found_by_its_files(small):
    data = jm.data.ratings(small, least=1)
    assert data.name == "movielens-100k" and data.classes == ("1", "2", "3", "4")
    assert data.x["item"].tolist() == [0, 2, 1, 0, 0]
    # groups of the age as in MovieLens-1M, occupations in the order of the alphabet
    users = [[1, 1, 19, 8], [1, 1, 19, 8], [0, 5, 13, 10], [0, 0, 18, 5], [1, 6, 0, 0]]
    assert data.x["user"].tolist() == users
    genres = [np.array(GENRES)[g > 0].tolist() for g in data.x["genres"][:3]]
    assert genres == [["Animation", "Comedy"], [], ["Western"]]
    assert data.targets.tolist() == [[5], [1], [3], [2], [4]]


@pytest.mark.parametrize(
    ("name", "line", "text", "sentence"),
    [
        (
            "u.data",
            0,
            "2\t5\t6\t9",
            r"u.data, line 1: expected as rating one of 1, .*'6'",
        ),
        (
            "u.data",
            0,
            "2\t5\t0\t9",
            r"u.data, line 1: expected as rating one of 1, .*'0'",
        ),
        ("u.data", 1, "8\t1\t5\t9", r"line 2: user '8' is not in u.user"),
        ("u.data", 1, "1\t4\t5\t9", r"line 2: movie '4' is not in u.item"),
        (
            "u.user",
            0,
            "1|x|M|other|1",
            r"line 1: expected a whole number as age, got 'x'",
        ),
        ("u.user", 0, "1|24|M|king|1", r"expected as occupation one of administrator"),
        (
            "u.item",
            1,
            film(5)[:-1] + "2",
            r"u.item, line 2: expected as genre one of 0, 1",
        ),
        ("u.item", 1, "5|title", r"u.item, line 2: expected 24 fields .* got 2"),
    ],
)
def test_a_broken_line_of_the_other_edition_too(small, name, line, text, sentence):
    lines = [*SMALL[name]]
    lines[line] = text
    write(small, name, lines)
    with pytest.raises(ValueError, match=sentence):
        jm.data.ratings(small, least=1)


def test_no_files_and_files_of_two_editions_are_said(small, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match=r"expected users.dat, .* or u.user"):
        jm.data.ratings(empty)
    write(small, "ratings.dat", FILES["ratings.dat"])
    with pytest.raises(
        ValueError, match=r"files of MovieLens-1M and of MovieLens-100K"
    ):
        jm.data.ratings(small)
