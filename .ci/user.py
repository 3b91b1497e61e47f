# pyright: strict, reportMissingTypeStubs=false
"""What a user may write: a strict type checker has nothing to say about it."""

import jax
import optax

import jaxmeta as jm

train = jm.tasks.episodes(jm.data.glyphs("train"), ways=5, shots=1, queries=5)
test = jm.tasks.episodes(jm.data.glyphs("test"), ways=5, shots=1, queries=5)
learner = jm.protonet(jm.models.mlp(784, 64), ways=5)
kept = jm.Checkpoints("checkpoints", about={"seed": 0})
best = jm.Best("accuracy", patience=3)
with jm.Log("metrics.jsonl", steps=20) as log:
    state = jm.fit(
        learner,
        train,
        optax.adam(1e-3),
        steps=20,
        key=jax.random.key(0),
        validation=test,
        validate_every=10,
        best=best,
        log=log,
        save=kept.save,
    )
kept.close()
report = jm.evaluate(learner, state.params, test, num_tasks=50, key=jax.random.key(1))
print(report.mean["accuracy"], report.ci95["accuracy"], report)
task = test.sample(jax.random.key(2))
adapted = learner.adapt(state.params, task.support)
logits: jax.Array = learner.predict(adapted, task.query.x)
