"""Ratings in the format of MovieLens-100K, of users and films that do not exist.

A film is better or worse, a user kinder or not, and has a taste for some genres that their
gender says in part.
"""

from pathlib import Path

import numpy as np

from jaxmeta.data.ratings import GENRES, NAMES


def write(folder: Path, users: int = 200, items: int = 120, seed: int = 0) -> None:
    """Write `u.user`, `u.item` and `u.data`; users have 15 to 30 ratings."""
    random = np.random.default_rng(seed)
    quality, kindness = 0.6 * random.normal(size=items), 0.4 * random.normal(size=users)
    kind, woman = random.integers(0, len(GENRES), items), random.integers(0, 2, users)
    typical = 0.5 * random.normal(size=(2, len(GENRES)))
    taste = typical[woman] + 0.5 * random.normal(size=(users, len(GENRES)))
    ratings = []
    for user in range(users):
        chosen = random.choice(items, random.integers(15, 31), replace=False)
        mean = 3.5 + kindness[user] + quality[chosen] + taste[user, kind[chosen]]
        stars = np.clip(np.rint(mean + 0.7 * random.normal(size=len(chosen))), 1, 5)
        rows = zip(chosen + 1, stars.astype(int), strict=True)
        ratings += [f"{user + 1}\t{film}\t{rating}\t0\n" for film, rating in rows]
    ages, jobs = random.integers(10, 70, users), random.integers(0, len(NAMES), users)
    people = [
        f"{i + 1}|{ages[i]}|{'MF'[woman[i]]}|{NAMES[jobs[i]]}|{i % 10}0000\n"
        for i in range(users)
    ]
    flags = lambda k: "|".join(str(int(g == k)) for g in range(-1, len(GENRES)))
    films = [f"{i + 1}|Film {i + 1}|||url|{flags(kind[i])}\n" for i in range(items)]
    for name, lines in (("u.user", people), ("u.item", films), ("u.data", ratings)):
        (folder / name).write_text("".join(lines), encoding="latin-1")
