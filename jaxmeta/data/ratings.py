"""Ratings of films, from the files that MovieLens publishes: a task is a user.

Harper, Konstan. The MovieLens Datasets: History and Context. TiiS 2015. MovieLens-1M has
1,000,209 ratings of 3,900 movies by 6,040 users, MovieLens-100K 100,000 of 1,682 by 943.
As tasks: Lee et al. MeLU: Meta-Learned User Preference Estimator for Cold-Start
Recommendation. KDD 2019, arXiv 1908.00413.

Departure: MeLU adds rating board, director and actors of a movie from elsewhere; here are
the genres, which is what the files have.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmeta.checks import check_paths, check_sizes
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.dataset import Dataset

GENDERS = ("F", "M")
AGES = ("1", "18", "25", "35", "45", "50", "56")  # the first year of each group
RATINGS = ("1", "2", "3", "4", "5")
REGIONS = 11  # the first digit of the zip code, or none
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical"),
    *("Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
NUMBERS = tuple(str(i) for i in range(21))  # of occupations, in MovieLens-1M
NAMES = (  # of occupations, in MovieLens-100K
    *("administrator", "artist", "doctor", "educator", "engineer", "entertainment"),
    *("executive", "healthcare", "homemaker", "lawyer", "librarian", "marketing"),
    *("none", "other", "programmer", "retired", "salesman", "scientist", "student"),
    *("technician", "writer"),
)


class File(NamedTuple):
    """One of the three files: its name, what stands between fields, their names."""

    name: str
    between: str
    fields: tuple[str, ...]


class Format(NamedTuple):
    """How an edition writes users, movies and ratings.

    user: (where, fields) -> gender, group of age, occupation. genres: (where, fields) ->
    places of a movie's genres.
    """

    name: str
    users: File
    movies: File
    ratings: File
    user: Callable[[str, list[str]], tuple[int, int, int]]
    genres: Callable[[str, list[str]], list[int]]


def _user_of_1m(where: str, fields: list[str]) -> tuple[int, int, int]:
    _, gender, age, occupation, _ = fields
    return (
        _place(where, "gender", gender, GENDERS),
        _place(where, "age", age, AGES),
        _place(where, "occupation", occupation, NUMBERS),
    )


def _user_of_100k(where: str, fields: list[str]) -> tuple[int, int, int]:
    _, age, gender, occupation, _ = fields
    years = _whole(where, "age", age)
    return (
        _place(where, "gender", gender, GENDERS),
        sum(years >= int(first) for first in AGES[1:]),
        _place(where, "occupation", occupation, NAMES),
    )


def _genres_of_1m(where: str, fields: list[str]) -> list[int]:
    return [_place(where, "genre", g, GENRES) for g in fields[2].split("|")]


def _genres_of_100k(where: str, fields: list[str]) -> list[int]:
    unknown, *flags = [_place(where, "genre", f, ("0", "1")) for f in fields[5:]]
    del unknown  # a movie of unknown genre has none
    return [i for i, flag in enumerate(flags) if flag]


FORMATS = (
    Format(
        "movielens-1m",
        File("users.dat", "::", ("UserID", "Gender", "Age", "Occupation", "Zip-code")),
        File("movies.dat", "::", ("MovieID", "Title", "Genres")),
        File("ratings.dat", "::", ("UserID", "MovieID", "Rating", "Timestamp")),
        _user_of_1m,
        _genres_of_1m,
    ),
    Format(
        "movielens-100k",
        File("u.user", "|", ("user id", "age", "gender", "occupation", "zip code")),
        File(
            "u.item",
            "|",
            ("movie id", "title", "release", "video", "url", "unknown", *GENRES),
        ),
        File("u.data", "\t", ("user id", "movie id", "rating", "timestamp")),
        _user_of_100k,
        _genres_of_100k,
    ),
)


def ratings(root: str | Path, *, least: int = 13, most: int | None = None) -> Dataset:
    """The ratings of each user, for `jm.tasks.users`.

    Args:
        root: folder of the three files of an edition as they are published (latin-1):
            `ratings.dat`, `users.dat`, `movies.dat` of MovieLens-1M, or `u.data`,
            `u.user`, `u.item` of MovieLens-100K.
        least: ratings that a user must have, others are left out; 13 in the MeLU paper.
        most: ratings that a user may have; None = any number, 100 in MeLU's code.

    Returns: a `Dataset` whose classes are the users by their id, targets [n, 1] float32 the
        ratings 1..5 in the order of the file, and x a dict: "item" [n] int32, the line of
        the movie in its file from 0; "user" [n, 4] int32, gender (0 = F, 1 = M), group of
        the age among the seven of MovieLens-1M, occupation 0..20, first digit of the zip
        code (10 if it is none); "genres" [n, 18] float32, 1 for each of the movie's
        `GENRES`. Cold and warm users are `data.splits(warm=0.8, cold=0.2)`.
    Raises: FileNotFoundError for a missing file; ValueError for a folder with both
        editions; ValueError with file and line for a wrong number of fields, an unknown
        user, movie or genre, a value out of its range, what is there twice, a last line
        without its end; ValueError if no user is left.
    """
    check_sizes(least=least)
    if most is not None:
        check_sizes(int(least), most=most)
    check_paths(root=root)
    root = Path(root)
    form = _format(root)
    users, movies = _users(root, form), _movies(root, form)
    user, item, rating = _ratings(root, form, users, movies)
    ids, place, counts = np.unique(user, return_inverse=True, return_counts=True)
    fits = (counts >= least) & (counts <= (counts.max() if most is None else most))
    if not fits.any():
        raise ValueError(
            f"least, most: expected users with {least} to {most or 'any number of'} ratings, "
            f"the {len(ids)} users of {root} have {counts.min()} to {counts.max()}"
        )
    kept = fits[place]
    user, item, rating = user[kept], item[kept], rating[kept]
    genres = np.stack([g for _, g in movies.values()])
    x = {
        "item": item,
        "user": np.stack([users[str(u)] for u in user]),
        "genres": genres[item],
    }
    return from_arrays(x, user, targets=rating[:, None], name=form.name)


def _format(root: Path) -> Format:
    """The edition whose files are there."""
    names = [
        [f.name for f in (form.users, form.movies, form.ratings)] for form in FORMATS
    ]
    found = [any((root / n).is_file() for n in own) for own in names]
    if all(found):
        raise ValueError(
            f"root: {root} has files of MovieLens-1M and of MovieLens-100K; expected one "
            "edition, put them into folders of their own"
        )
    if not any(found):
        raise FileNotFoundError(
            f"ratings: no files of ratings in {root}; expected {', '.join(names[0])} of "
            f"MovieLens-1M, or {', '.join(names[1])} of MovieLens-100K in root"
        )
    return FORMATS[found.index(True)]


def _users(root: Path, form: Format) -> dict[str, np.ndarray]:
    """id -> [4] int32."""
    found: dict[str, np.ndarray] = {}
    for where, fields in _lines(root, form, form.users):
        user, code = fields[0], fields[-1]
        _check_new(where, "user", user, found)
        region = int(code[0]) if code[:1] in set("0123456789") else REGIONS - 1
        found[user] = np.array([*form.user(where, fields), region], np.int32)
    return found


def _movies(root: Path, form: Format) -> dict[str, tuple[int, np.ndarray]]:
    """id -> (line from 0, genres [18])."""
    found: dict[str, tuple[int, np.ndarray]] = {}
    for where, fields in _lines(root, form, form.movies):
        _check_new(where, "movie", fields[0], found)
        several = np.zeros(len(GENRES), np.float32)
        several[form.genres(where, fields)] = 1
        found[fields[0]] = len(found), several
    return found


def _ratings(
    root: Path,
    form: Format,
    users: Mapping[str, object],
    movies: Mapping[str, tuple],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Id of the user, line of the movie, rating: [n] each."""
    seen: set[tuple[str, str]] = set()
    rows = []
    known = ("user", users, form.users.name), ("movie", movies, form.movies.name)
    for where, (user, movie, rating, _) in _lines(root, form, form.ratings):
        for value, (what, ids, name) in zip((user, movie), known, strict=True):
            if value not in ids:
                raise ValueError(
                    f"{where}: {what} {value!r} is not in {name}; expected files of one "
                    "edition, fetch them again"
                )
        if (user, movie) in seen:
            raise ValueError(
                f"{where}: user {user} has rated movie {movie} before; leave one out"
            )
        seen.add((user, movie))
        stars = _place(where, "rating", rating, RATINGS) + 1
        rows.append((int(user), movies[movie][0], stars))
    user, item, rating = np.array(rows).T
    return user, item.astype(np.int32), rating.astype(np.float32)


def _lines(root: Path, form: Format, file: File) -> Iterator[tuple[str, list[str]]]:
    """(file and number, fields) of each line."""
    path, fields = root / file.name, file.fields
    if not path.is_file():
        names = (f.name for f in (form.users, form.movies, form.ratings))
        raise FileNotFoundError(
            f"ratings: no file {path}; expected {', '.join(names)} of {form.name} in root"
        )
    lines = path.read_bytes().decode("latin-1").split("\n")
    if lines == [""]:
        raise ValueError(f"ratings: {path} is empty (0 bytes); fetch it again")
    end = lines.pop()
    for number, line in enumerate(lines, 1):
        found = line.removesuffix("\r").split(file.between)
        where = f"ratings: {path}, line {number}"
        if len(found) != len(fields):
            raise ValueError(
                f"{where}: expected {len(fields)} fields "
                f"{file.between.join(fields[:5])!r}, got {len(found)}; fetch the file again"
            )
        _whole(where, fields[0], found[0])
        yield where, found
    if end:
        raise ValueError(
            f"ratings: {path}, line {len(lines) + 1}: the last line has no end, so it may "
            "be truncated; fetch the file again, or end the line if it is whole"
        )


def _check_new(where: str, what: str, value: str, known: Mapping[str, object]) -> None:
    if value in known:
        raise ValueError(f"{where}: {what} {value} is there twice; leave one out")


def _whole(where: str, what: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{where}: expected a whole number as {what}, got {value!r}")
    return int(value)


def _place(where: str, what: str, value: str, among: tuple[str, ...]) -> int:
    if value not in among:
        raise ValueError(
            f"{where}: expected as {what} one of {', '.join(among)}, got {value!r}"
        )
    return among.index(value)
