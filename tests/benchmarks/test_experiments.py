"""Every experiment of benchmarks/ runs at a tiny size, and its results are sound."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta.learners.objectives import query_loss
from jaxmeta.learners.registry import Facts

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILES = [p for p in sorted(FOLDER.rglob("*.py")) if "\n    def tiny(" in p.read_text()]
QUICK = "end_to_end", "meta_step", "population", "run"


def row(name):
    return pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("name", [row(path.stem) for path in FILES])
def test_an_experiment_runs(name, experiment, monkeypatch, tmp_path, capsys):
    module = experiment(name)
    config = module.Config.tiny()
    results = module.run(jax.random.key(0), config)
    for number in jax.tree.leaves(plain(results)):
        assert isinstance(number, str) or np.isfinite(number)
    globals()[f"check_{name}"](results)
    # files, tables and pictures of the same numbers
    monkeypatch.setattr(module, "run", lambda key, config: results)
    module.main(config)
    assert list(tmp_path.glob("*.json")) and "|---|" in capsys.readouterr().out
    assert hasattr(module, "plot") == bool(list(tmp_path.glob("*.png")))


def plain(results):
    """Results as a file gives them back."""
    return json.loads(json.dumps(results, default=lambda a: a.tolist()))


def check_adjoints(results):
    names = "MixedMode()", "Reverse('none')"
    pairs = [(r["adjoint"], r["steps"]) for r in results["rows"]]
    assert pairs == [(name, 3) for name in names]
    assert results["ratios"]["memory / plain reverse"] < 1


def check_cavia(results):
    # CAVIA without context parameters has nothing to adapt
    assert {m: set(cells) for m, cells in results.items()} == {
        "CAVIA": {"2"},
        "MAML": {"0", "2"},
    }


def check_bandits(results):
    assert_acting(results["rows"], most=3)
    assert abs(of("optimum", results) - 1.6667) < 0.2  # 2 arms, 3 pulls; more than 1.5


def check_tabular_mdp(results):
    assert_acting(results["rows"], most=np.inf)
    assert of("MDP known", results) > 0


def check_grid(results):
    assert_acting(results["rows"], most=of("goal known", results))
    # 3x3, 6 steps: the 5 goals are passed in steps 2 to 6, then gone to at once
    assert of("Bayes-optimal", results) == pytest.approx(2.7 + 4.02)


def check_navigation(results):
    _, still, straight = adapted(results, seeds=[0])
    assert still < straight < 0


def check_corners(results):
    *_, straight, pacing = adapted(results, seeds=[0])
    # too short to pace: some of three moves of at most 0.283 are paid
    assert 0.2 < straight < 0.85 and 0.2 < pacing < 0.85


def adapted(results, seeds):
    """Returns after the last update: of learners, one a seed, and of rules."""
    rows = results["rows"]
    assert [r["seed"] for r in rows if "seed" in r] == seeds
    assert all(list(r["mean"])[:2] == ["return_0", "return_1"] for r in rows)
    return [r["mean"]["return"] for r in rows]


def of(agent, results):
    (row,) = (r for r in results["rows"] if r["agent"] == agent)
    return row["mean"]["total"]


def assert_acting(rows, most):
    """Two seeds, then others; all episodes of a trial make its return."""
    assert [r["seed"] for r in rows if r["agent"] == "RL^2"] == [0, 1]
    for row in rows:
        total = row["mean"]["total"]
        episodes = [v for name, v in row["mean"].items() if name.startswith("episode")]
        assert not episodes or total == pytest.approx(sum(episodes), abs=1e-4)
        assert total < most + 1e-4


def check_digits(results):
    assert len(results["rows"]) == 2
    assert all(0 < row["accuracy"] <= 100 for row in results["rows"])


def check_hyper_cleaning(results):
    rows = {r["trained on"]: r["accuracy"] for r in results["rows"]}
    assert rows["noisy"].shape == (2,) and len(rows) == 5
    assert all(0 <= a <= 1 for a in (*rows["noisy"], *results["f1"]))
    assert (rows["right labels and validation"] > rows["noisy"]).all()


def check_lp_ft(results):
    plans = {
        **{"head": "0.03", "everything": "0.001"},
        **{"head, then everything": "1 of the head, then 0.001", "nearest pixels": ""},
    }
    assert {r["what moves"]: r["how"] for r in results["rows"]} == plans
    assert all(0 <= a <= 100 for r in results["rows"] for a in r["accuracy"])


def check_end_to_end(results):
    (row,) = results["inside compiled"]
    assert 0 < float(row["inside compiled steps"].split()[0]) <= 100


def check_imaml(results):
    error = {name: cells["200 steps"] for name, cells in results["errors"].items()}
    assert error["Implicit(cg, 50)"] < 1e-3 < error["Implicit(cg, 1)"]


def check_learned_optimizer(results):
    curves = results["quadratics"]
    starts = [values[0] for values in curves.values()]
    np.testing.assert_allclose(starts, starts[0], rtol=1e-5)  # the same problems
    assert len(curves) == 5 and {len(values) for values in curves.values()} == {6}


def check_mann(results):
    assert [point["step"] for point in results["curve"]] == [1, 2]
    assert len(results["presentations"]) == 9


def check_meta_sgd(results):
    assert {errors.shape for errors in results.values()} == {(2,)}


def check_meta_step(results):
    assert [row["at once"] for row in results["rows"]] == [1, 4, 25]
    assert all(row["ms a step"] > 0 for row in results["rows"])


def check_neural_process(results):
    values = results["cnp"]["log_likelihood"]
    assert values[0] < values[1] < results["cnp"]["exact"]  # the ceiling


def check_omniglot(results):
    assert {name: r["steps"] for name, r in results.items()} == {"reptile": 3}
    assert all(0 <= r["accuracy"] <= 100 for r in results.values())


def check_omniglot_challenge(results):
    (judged,) = results.values()
    assert [row["method"] for row in judged] == [
        *("pixels, nearest neighbour", "2 protonets, many looks"),
        "2 pt_maps (transductive)",
    ]
    assert all(0 <= row["error"] <= 100 for row in judged)


def check_omniglot_families(results):
    steps = {name: [r["steps"] for r in columns] for name, columns in results.items()}
    assert steps == {"pixels": [0], "versa": [2]}
    # letters are not noise: pixels are above chance
    assert 20 < results["pixels"][0]["accuracy"] <= 100


def check_population(results):
    assert [row["members"] for row in results["rows"]] == [1, 2]
    assert results["rows"][0]["times one"] == "1.00"


def check_run(results):
    """Processes, gradients, turns, without the PyTorch peers."""
    ours, naive = results["S, 1"].values()
    assert naive["gradient_error"] < 1e-12
    assert ours["ms"] == sorted(ours["ms"]) and ours["peak_mb"] > 100


def check_scaling(results):
    cases = [(r["scaling"], r["devices"]) for r in results["rows"]]
    assert cases == [("strong", 1), ("strong", 2), ("weak", 2)]
    assert results["rows"][0]["of one"] == 1


def check_remat(results):
    kept, offloaded = results["rows"]
    assert kept["case"] == "MixedMode()" and kept["MB"] < offloaded["MB"]
    assert kept["host"] == offloaded["host"] == 0  # a CPU has no other memory


def check_faults(results):
    for row in results["rows"]:
        assert row["nothing lost"] == row["times"] > 0, row


def check_valley(results):
    assert list(results) == ["mean", "CAGrad"]
    for values in results.values():  # from three starts, twice each
        assert values.shape == (3, 2, 5) and (values[1, :, -1] < values[1, :, 0]).all()
    np.testing.assert_allclose(results["mean"][:, :, 0], results["CAGrad"][:, :, 0])


def check_halting(results):
    joint, maml, halting = results.values()
    assert "steps" not in joint and "steps" not in maml
    assert 1 <= halting["steps"][0] <= 2


def check_sinusoid(results):
    one, _, ten = results["MAML"]
    assert ten < one  # more steps, less error


def check_streams(results):
    assert all(row["a second"] > 0 for row in results["rates"])
    arrays, files = results["trainings"]
    assert arrays["over arrays"] == 1 and files["examples"] == "PNG files"
    assert len(results["memory"]) == 2


def check_agents(results):
    (ours,) = results["results"]["bandit, tiny"].values()
    assert ours["ms"] == sorted(ours["ms"]) and ours["ms"][0] > 0
    assert [row["updates"] for row in results["memory"]] == [1, 2]


def check_adaptation(results):
    (ours,) = results["results"]["DANN, tiny"].values()
    assert ours["ms"] == sorted(ours["ms"]) and ours["ms"][0] > 0
    assert 0 <= ours["accuracy"] <= 1 and ours["first_s"] > ours["ms"][1] / 1e3


def check_two_levels(results):
    (ours,) = results["results"]["Meta-Weight-Net, tiny"].values()
    assert ours["ms"] == sorted(ours["ms"]) and ours["ms"][0] > 0
    assert 0 <= ours["accuracy"] <= 1 and ours["first_s"] > ours["ms"][1] / 1e3


def check_moons(results):
    assert_across(results, ["source only", "DANN"], ["30"], runs=2)


def check_domain_digits(results):
    titles = ["source only", "in-domain", "pixel nearest neighbour"]
    rows = assert_across(results, titles, ["O -> M", "M -> O"], runs=1)
    assert rows["pixel nearest neighbour"]["O -> M"][0] > 0.4  # M is noise here


def check_movielens(results):
    assert results["data"] == "generated"
    rows = {row["learner"]: row for row in results["rows"]}
    assert len(rows) == 6 and "R2D2 above the item mean" in rows
    assert all(len(row["ndcg"]) == 2 for row in rows.values())
    # a bias changes no order; the means of the generated items are worth something
    plain, biased = rows["item mean"], rows["item mean + user bias"]
    np.testing.assert_allclose(plain["ndcg"], biased["ndcg"])
    assert np.mean(biased["mae"]) < np.mean(plain["mae"]) < 1
    assert np.mean(plain["ndcg"]) > np.mean(rows["random"]["ndcg"])
    told = rows["ALPaCA above the item mean"]  # which users like which genres
    assert np.mean(told["mae"]) < np.mean(biased["mae"])
    # more is known of the films by those who rated more of them
    assert np.mean(rows["ALPaCA, all other users"]["mae"]) < np.mean(biased["mae"])


def check_shifts(results):
    shifts = ["covariate", "target", "conditional", "subspace"]
    assert_across(results, ["source only", "target only"], shifts, runs=2)


def check_compressing(results):
    rows = {row["how"]: row for row in results}
    whole, small = rows.pop("as learned"), rows["50% pruned, trained on, eight bits"]
    assert whole["fell"] == [0] and 0 <= whole["accuracy"][0] <= 100
    assert 7 < whole["bytes"][0] / small["bytes"][0] < 8
    for row in rows.values():
        fell = whole["accuracy"][0] - row["accuracy"][0]
        np.testing.assert_allclose(row["fell"], fell, atol=1e-4)


def check_long_tail(results):
    names = [row["weights"] for row in results["rows"]]
    assert names == ["one", "Meta-Weight-Net"]
    assert all(np.shape(row["accuracy"]) == (2,) for row in results["rows"])
    assert all(0 <= a <= 100 for row in results["rows"] for a in row["accuracy"])


def test_a_draw_of_letters_is_ten_to_one_and_balanced_in_the_test(experiment):
    module = experiment("long_tail")
    config = module.Config()
    sets = module.drawn(0, config)
    number = lambda batch: np.bincount(batch.y, minlength=10).tolist()
    assert number(sets.train) == [10, 8, 6, 5, 4, 3, 2, 2, 1, 1]
    assert number(sets.validation) == [3] * 10 and number(sets.test) == [8] * 10
    drawings = np.concatenate([batch.x for batch in sets])
    assert len(np.unique(drawings, axis=0)) > 0.95 * len(drawings)  # fonts may agree
    assert len(module.joined(sets).train.y) == 42 + 30


def check_split_digits(results):
    rows = {row["method"]: row for row in results["rows"]}
    assert list(rows) == ["plain", "replay", "joint"]
    for row in rows.values():
        assert row["accuracy"].shape == row["forgetting"].shape == (1,)
        assert row["ends"].shape == (1, 5) and 0 <= row["accuracy"].min() <= 1
    np.testing.assert_allclose(rows["plain"]["ends"].mean(), rows["plain"]["accuracy"])


def check_leopard(results):
    assert [(r["task"], r["ways"], r["largest"]) for r in results] == [
        ("airline", 2, 50.0),
        ("scitail", 2, 50.0),
    ]
    for row in results:
        assert row["R2D2"].shape == row["prototypes"].shape == (2,)
        assert (row["R2D2"] > 90).all() and (row["prototypes"] > 90).all()


def check_continual_omniglot(results):
    names = [row["learner"] for row in results["rows"]]
    assert names == ["head on a network without training", "OML"]
    for row in results["rows"]:
        assert row["classes"] == 3 and row["new"].shape == (1,)
        assert 0 <= row["new"][0] <= 1 and 0 <= row["stream"][0] <= 1


def assert_across(results, titles, columns, runs):
    """Shares that are wrong, one of each run."""
    rows = {row["learner"]: row["errors"] for row in results["rows"]}
    assert list(rows) == titles
    for found in rows.values():
        assert list(found) == columns
        assert all(np.shape(v) == (runs,) for v in found.values())
        assert all(0 <= e <= 1 for v in found.values() for e in np.asarray(v))
    return rows


@pytest.mark.parametrize("name", ["moons", "domain_digits", "shifts"])
def test_every_row_across_domains_is_built(name, experiment):
    module, facts = experiment(name), Facts(ways=2, x_dims=2)
    across, training = experiment("across"), {"inner_steps": 1, "inner_lr": 0.1}
    rows = across.chosen(module.ROWS, None)
    assert {"source only"} < {row.title for row in rows}
    x, y = jax.ShapeDtypeStruct((4, 2), "float32"), jax.ShapeDtypeStruct((4,), "int32")
    task = jm.Task(jm.Batch(x, y), jm.Batch(x, y))
    for learner in (
        made for row in rows for made in row.makes(facts, 4, training).values()
    ):
        params = jax.eval_shape(learner.init, jax.random.key(0))
        found = jax.eval_shape(learner.loss, params, task, jax.random.key(1))
        assert found[1]["accuracy"].shape == ()


def test_an_option_is_chosen_without_labels_of_the_target(experiment):
    across, near = experiment("across"), jm.nearest_neighbour(ways=2)

    def saying(w):  # of 1 and 2 class 0 and 1, or of both class 1
        predict = lambda adapted, x, mask=None: jnp.concatenate([1.5 + 0 * x, w * x], 1)
        loss = query_loss(near.adapt, predict, jm.losses.cross_entropy)
        return near._replace(predict=predict, loss=loss)

    x, y = np.array([[1.0], [2.0]], np.float32), np.arange(2)
    made = lambda test: across.tasks_of(*(across.Domain(x, y),) * 2, test)["adapted"]
    tasks = across.stacked([made(across.Domain(x, y)), made(across.Domain(x, 1 - y))])
    options = {"one": saying(9.0), "both": saying(1.0)}
    wrong, names = across.best_errors(options, tasks, jax.random.key(0))
    assert names == ["both"] * 2 and wrong.tolist() == [0, 1]


def test_probabilities_of_several_networks_are_averaged(experiment):
    across, near = experiment("across"), jm.nearest_neighbour(ways=2)
    drawn = near._replace(  # sure of the one class in a third of cases, or a bit of the other
        init=lambda key: jax.random.bernoulli(key, 1 / 3),
        adapt=lambda params, support, key=None: params,
        predict=lambda sure, x, mask=None: jnp.where(
            sure, jnp.array([[9.0, 0.0]]), jnp.array([[0.0, 0.1]])
        ).repeat(len(x), 0),
    )
    domain = across.Domain(np.zeros((2, 1), np.float32), np.zeros(2, int))
    tasks = across.stacked([across.tasks_of(domain, domain, domain)["adapted"]])
    one, together = across.errors_of_starts(drawn, tasks, jax.random.key(0), 16)
    assert 0.3 < one[0] < 1 and together[0] == 0


def test_a_picture_is_cut_to_its_ink_and_averaged(experiment):
    module = experiment("domain_digits")
    image = np.zeros((28, 28), np.float32)
    image[3:19, 5:13] = 1 + np.arange(16)[:, None]  # a cell: two rows, one column
    found = module.small(image).reshape(8, 8)
    np.testing.assert_allclose(found, np.tile(1.5 + 2.0 * np.arange(8)[:, None], 8))
    for length in (3, 8, 20):  # each cell is a mean, all cells are the whole
        cells = module.cells(length)
        np.testing.assert_allclose(cells.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(cells.sum(0), 8 / length, rtol=1e-6)


def test_shifts_are_those_of_skada(experiment):
    """Means and shares of a draw with many points, by the constants of its code."""
    module = experiment("shifts")
    config = module.Config(points=2000, subspace_points=2000)
    draw = lambda name: module.SHIFTS[name](np.random.RandomState(0), config)
    middle = np.array([[2, 2], [0.5, 0.65]])  # of the disc, of the four clusters
    for name in ("covariate", "target", "conditional"):
        source, _ = draw(name)
        for k in range(2):
            np.testing.assert_allclose(
                source.x[source.y == k].mean(0), middle[k], atol=0.06
            )
    _, there = draw("conditional")
    np.testing.assert_allclose(
        there.x[there.y == 0].mean(0), 0.7 * middle[0] + 1, atol=0.05
    )
    _, there = draw("target")
    assert (there.y == 0).mean() == 0.9
    source, there = draw("subspace")
    np.testing.assert_allclose(source.x.mean(0), [-0.25, 0.25], atol=0.05)
    np.testing.assert_allclose(there.x.mean(0), [0.25, -0.25], atol=0.05)
    _, there = draw("covariate")
    assert np.abs(there.x.mean(0) - [-0.4, 3]).max() < 0.5  # where the weights are


def test_learners_of_the_neural_process_table_have_losses(experiment):
    module, task = experiment("neural_process"), jm.tasks.gaussian_process()
    shapes = jax.eval_shape(task.sample, jax.random.key(0))
    for name in module.LEARNERS:
        learner = module.make(name, 16)
        params = jax.eval_shape(learner.init, jax.random.key(0))
        losses = [learner.loss]
        if learner.objective is not None:
            losses.append(partial(learner.objective, step=0))
        for loss in losses:
            found = jax.eval_shape(loss, params, shapes, key=jax.random.key(1))
            assert found[0].shape == ()


def test_the_neural_process_picture_has_other_runs_of_as_many_steps(
    experiment, tmp_path
):
    for stem in ("cnp_400", "anp_400", "tnpd_800"):
        kept = json.dumps({"runs": [{"steps": [1], "log_likelihood": [0.0]}]})
        (tmp_path / f"neural_process_{stem}.json").write_text(kept)
    assert set(experiment("neural_process").stored(400)) == {"cnp", "anp"}


def test_every_row_of_the_omniglot_table_is_built(experiment):
    module, letters = experiment("omniglot"), experiment("characters").few_shot(None)
    assert {ways for _, ways in module.EXPERIMENTS} == {5, 20}
    for (name, ways), e in module.EXPERIMENTS.items():
        sets = module.samplers(e, ways, letters)
        for learner in module.pair(name, e, *sets, steps=100):
            jax.eval_shape(learner.init, jax.random.key(0))
        module.outer(e, 100, 0.5)


@pytest.mark.slow
def test_every_row_of_the_families_table_is_built(experiment):
    module, networks = experiment("omniglot_families"), experiment("networks")
    for e in module.EXPERIMENTS.values():
        for ways, shots in module.COLUMNS:
            ways = e.train_ways or ways
            sampler = jm.tasks.episodes(jm.data.glyphs(), ways, shots, 1)
            learner = networks.build(e.learner, sampler, e.networks)
            jax.eval_shape(learner.init, jax.random.key(0))


def test_every_adaptation_that_is_timed_is_built(experiment):
    peers, of = experiment("adaptation_jax"), experiment("adaptation_workloads")
    for w in of.PAIRS.values():
        peer = peers.Ours(w, of.data(w, np.float32), of.weights(w, np.float32))
        found = jax.eval_shape(peer.logits, *peer.given)
        assert found.shape == (w.examples, w.ways)


def test_both_ways_of_cleaning_that_are_timed_are_built(experiment):
    peers, of = experiment("two_levels_jax"), experiment("two_levels_workloads")
    for w in (w for w in of.PROBLEMS.values() if w.method != "weight_net"):
        peer = peers.Ours(w, of.data(w, np.float32), of.weights(w, np.float32))
        state = jax.eval_shape(peer.outer.init, jax.random.key(0))
        step = (state, peer.sampler, jax.random.key(0))
        after, metrics = jax.eval_shape(peer.outer.step, *step)
        assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, after, state))
        assert ("linear_residual" in metrics) == (w.method == "implicit")


def test_whoever_knows_a_class_again_foretells_all_but_its_first_example(experiment):
    module, letters = experiment("mann"), experiment("characters").letters()
    firsts = letters.x[letters.offsets].repeat(letters.counts, axis=0)
    same = dataclasses.replace(letters, x=firsts)
    nearest = jm.nearest_neighbour(ways=5)
    config, key = module.Config.tiny(), jax.random.key(0)
    assert module.presentations(nearest, (), same, config, key) == [100.0] * 9
