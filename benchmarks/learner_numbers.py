"""One number a learner, ours beside the published one: jaxmeta/learners/numbers.json.

    python benchmarks/learner_numbers.py && jaxmeta list --markdown > docs/learners.md

Ours come from results/, theirs from published.json; a learner without a run that has a
published counterpart has no row.
"""

import json
import statistics
from pathlib import Path

from domain_digits import ROWS as DIGITS
from published import published

HERE = Path(__file__).parent
PAGE = HERE.parent / "jaxmeta" / "learners" / "numbers.json"
OMNIGLOT = "Omniglot, 5-way 1-shot, %"


def result(name: str) -> dict:
    """A file of results/."""
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def accuracy(found: dict, steps: int) -> str:
    """x ± y (steps)."""
    return f"{found['accuracy']:.2f} ± {found['ci95']:.2f} ({steps:,} steps)"


def row(on: str, ours: str, experiment: str, name: str, column: str) -> dict[str, str]:
    """One learner's cells."""
    said = published(experiment, name).get(column, "-")
    return {"on": on, "ours": ours, "published": said}


def numbers() -> dict[str, dict[str, str]]:
    """learner -> cells."""
    rows = {}
    whole = ("maml", "anil", "protonet")
    for name in (*whole, "fomaml", "meta_sgd", "reptile", "imaml", "maml_plus_plus"):
        found = result(f"omniglot_5way_{name}_seed0")["result"]
        ours = accuracy(found, found["steps"])
        rows[name] = row(OMNIGLOT, ours, "omniglot", name, "5-way 1-shot")
    for name in ("matching", "relation", "r2d2", "metaoptnet", "versa", "snail"):
        found = result(f"omniglot_families_{name}_seed0")["results"][0]
        ours = accuracy(found, found["steps"])
        rows[name] = row(OMNIGLOT, ours, "omniglot", name, "5-way 1-shot")
    found = result("mann_5way")
    ours = accuracy(found["1-shot"], found["steps"])
    rows["mann"] = row(OMNIGLOT, ours, "mann", "mann", "1-shot")
    pixels = result("omniglot_families_pixels_seed0")["results"][0]
    ours = f"{pixels['accuracy']:.2f} ± {pixels['ci95']:.2f}"
    rows["nearest_neighbour"] = {"on": OMNIGLOT, "ours": ours, "published": "-"}
    for name in ("cnp", "neural_process", "anp", "tnpd"):
        run = result(f"neural_process_{name}_50000")["runs"][0]
        on = "Gaussian processes, log-likelihood (exact: 1.54)"
        ours = f"{run['log_likelihood'][-1]:.3f} (50,000 steps)"
        rows[name] = row(on, ours, "neural_process", name, "100,000 steps")
    seeds = result("cavia")["CAVIA"]["2"]
    ours = f"{sum(seeds) / len(seeds):.2f} ({min(seeds):.2f} to {max(seeds):.2f})"
    on = "sinusoids, error with 2 context parameters"
    rows["cavia"] = row(on, ours, "cavia", "CAVIA", "2")
    error = result("halting")["halting_maml, a step costs 0.01"]["error"]
    on = "sinusoids, error with at most 5 steps"
    rows["halting_maml"] = unpublished(on, spread(error, 3))
    rows |= recommenders() | adapters() | of_streams()
    return dict(sorted(rows.items()))


def recommenders() -> dict[str, dict[str, str]]:
    """Rows of MovieLens."""
    titles = {"item_mean": "item mean", "melu": "MeLU, 1 step of 5e-6", "tanp": "TaNP"}
    of = {r["learner"]: r["ndcg"] for r in result("movielens")["rows"]}
    said = lambda v: (
        f"{statistics.mean(v):.3f} ± {statistics.stdev(v):.3f} (sd of splits)"
    )
    on = "MovieLens-100K, nDCG of the first 5"
    ndcg = said(of["ALPaCA above the item mean"])
    alpaca = unpublished(f"{on}, above the item mean", ndcg)
    return {"alpaca": alpaca} | {
        name: row(on, said(of[title]), "movielens", title, "ndcg")
        for name, title in titles.items()
    }


def adapters() -> dict[str, dict[str, str]]:
    """Rows of digits of another origin, of each learner's first line."""
    titles = {row.title: row.learner for row in reversed(DIGITS)}
    of = {
        titles.get(r["learner"]): r for r in reversed(result("domain_digits")["rows"])
    }
    on = "digits of another origin, MNIST to 8 x 8 scans, %"
    right = lambda r: [100 - 100 * e for e in r["errors"]["M -> O"]]
    return {n: unpublished(on, spread(right(r), 1)) for n, r in of.items() if n}


def of_streams() -> dict[str, dict[str, str]]:
    """Rows of streams: characters of Omniglot, and digits by class."""
    on, rows = "Omniglot, after a stream of 600 characters, %", {}
    found = result("continual_omniglot_20000")["rows"]
    for title in ("OML", "ANML"):
        (new,) = (
            r["new"] for r in found if (r["learner"], r["classes"]) == (title, 600)
        )
        ours = spread([100 * a for a in new], 1) + " (20,000 steps)"
        rows[title.lower()] = row(on, ours, "continual_omniglot", title, "600")
    split = {r["method"]: r["accuracy"] for r in result("split_digits")["rows"]}
    seen = spread([100 * a for a in split["La-MAML"]], 1)
    rows["la_maml"] = unpublished("8 x 8 digits, two classes after two, %", seen)
    return rows


def spread(values: list[float], digits: int) -> str:
    """Mean (least to most)."""
    said = (
        f"{v:.{digits}f}" for v in (statistics.mean(values), min(values), max(values))
    )
    return "{} ({} to {})".format(*said)


def unpublished(on: str, ours: str) -> dict[str, str]:
    """Cells of a learner of whose problem nothing is published."""
    return {"on": on, "ours": ours, "published": "-"}


def main() -> None:
    """Write the file that `jaxmeta list --markdown` reads."""
    PAGE.write_text(json.dumps(numbers(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
