"""MovieLens-1M, read from its own files: a task is a user, to predict are their ratings.

Harper, Konstan. The MovieLens Datasets: History and Context. TiiS 2015. 1,000,209 ratings
of 3,900 movies by 6,040 users. As tasks: Lee et al. MeLU: Meta-Learned User Preference
Estimator for Cold-Start Recommendation. KDD 2019, arXiv 1908.00413.

Departure: MeLU adds rating board, director and actors of a movie from elsewhere; here are
the genres, which is what the files have.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from jaxmeta.checks import check_paths, check_sizes
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.dataset import Dataset

FIELDS = {
    "users.dat": ("UserID", "Gender", "Age", "Occupation", "Zip-code"),
    "movies.dat": ("MovieID", "Title", "Genres"),
    "ratings.dat": ("UserID", "MovieID", "Rating", "Timestamp"),
}
GENDERS = ("F", "M")
AGES = ("1", "18", "25", "35", "45", "50", "56")
OCCUPATIONS = tuple(str(i) for i in range(21))
RATINGS = ("1", "2", "3", "4", "5")
REGIONS = 11  # the first digit of the zip code, or none
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical"),
    *("Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def movielens(root: str | Path, *, least: int = 13, most: int | None = None) -> Dataset:
    """The ratings of each user, for `jm.tasks.by_task`.

    Args:
        root: folder of `ratings.dat`, `users.dat` and `movies.dat` as they are published
            (fields separated by `::`, latin-1).
        least: ratings that a user must have, others are left out; 13 in the MeLU paper.
        most: ratings that a user may have; None = any number, 100 in MeLU's code.

    Returns: a `Dataset` whose classes are the users by their id, targets [n, 1] float32 the
        ratings 1..5 in the order of the file, and x a dict: "item" [n] int32, the line of
        the movie in `movies.dat` from 0; "user" [n, 4] int32, gender (0 = F, 1 = M), place
        of the age among the seven, occupation 0..20, first digit of the zip code (10 if it
        is none); "genres" [n, 18] float32, 1 for each of the movie's `GENRES`. Cold and
        warm users are `data.splits(warm=0.8, cold=0.2)`.
    Raises: FileNotFoundError for a missing file; ValueError with file and line for a wrong
        number of fields, an unknown user, movie or genre, a value out of its range, what is
        there twice, a last line without its end; ValueError if no user is left.
    """
    check_sizes(least=least)
    if most is not None:
        check_sizes(int(least), most=most)
    check_paths(root=root)
    root = Path(root)
    users, movies = _users(root), _movies(root)
    user, item, rating = _ratings(root, users, movies)
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
    return from_arrays(x, user, targets=rating[:, None], name="movielens")


def _users(root: Path) -> dict[str, np.ndarray]:
    """id -> [4] int32."""
    found: dict[str, np.ndarray] = {}
    for where, (user, gender, age, occupation, code) in _lines(root, "users.dat"):
        _check_new(where, "user", user, found)
        region = int(code[0]) if code[:1] in set("0123456789") else REGIONS - 1
        places = (
            _place(where, "gender", gender, GENDERS),
            _place(where, "age", age, AGES),
            _place(where, "occupation", occupation, OCCUPATIONS),
        )
        found[user] = np.array([*places, region], np.int32)
    return found


def _movies(root: Path) -> dict[str, tuple[int, np.ndarray]]:
    """id -> (line from 0, genres [18])."""
    found: dict[str, tuple[int, np.ndarray]] = {}
    for where, (movie, _, genres) in _lines(root, "movies.dat"):
        _check_new(where, "movie", movie, found)
        several = np.zeros(len(GENRES), np.float32)
        several[[_place(where, "genre", g, GENRES) for g in genres.split("|")]] = 1
        found[movie] = len(found), several
    return found


def _ratings(
    root: Path, users: Mapping[str, object], movies: Mapping[str, tuple]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Id of the user, line of the movie, rating: [n] each."""
    seen: set[tuple[str, str]] = set()
    rows = []
    for where, (user, movie, rating, _) in _lines(root, "ratings.dat"):
        for what, value, known in (("user", user, users), ("movie", movie, movies)):
            if value not in known:
                raise ValueError(
                    f"{where}: {what} {value!r} is not in {what}s.dat; expected files of "
                    "one edition, fetch them again"
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


def _lines(root: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """(file and number, fields) of each line."""
    path, fields = root / name, FIELDS[name]
    if not path.is_file():
        raise FileNotFoundError(
            f"movielens: no file {path}; expected {', '.join(FIELDS)} of MovieLens-1M in "
            "root"
        )
    lines = path.read_bytes().decode("latin-1").split("\n")
    if lines == [""]:
        raise ValueError(f"movielens: {path} is empty (0 bytes); fetch it again")
    end = lines.pop()
    for number, line in enumerate(lines, 1):
        found = line.removesuffix("\r").split("::")
        where = f"movielens: {path}, line {number}"
        if len(found) != len(fields):
            raise ValueError(
                f"{where}: expected {len(fields)} fields {'::'.join(fields)}, got "
                f"{len(found)}; fetch the file again"
            )
        if not (found[0].isascii() and found[0].isdigit()):
            raise ValueError(
                f"{where}: expected a whole number as {fields[0]}, got {found[0]!r}"
            )
        yield where, found
    if end:
        raise ValueError(
            f"movielens: {path}, line {len(lines) + 1}: the last line has no end, so it may "
            "be truncated; fetch the file again, or end the line if it is whole"
        )


def _check_new(where: str, what: str, value: str, known: Mapping[str, object]) -> None:
    if value in known:
        raise ValueError(f"{where}: {what} {value} is there twice; leave one out")


def _place(where: str, what: str, value: str, among: tuple[str, ...]) -> int:
    if value not in among:
        raise ValueError(
            f"{where}: expected as {what} one of {', '.join(among)}, got {value!r}"
        )
    return among.index(value)
