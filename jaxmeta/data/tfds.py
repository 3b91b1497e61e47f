"""Any prepared classification set of tensorflow-datasets, read without TensorFlow."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.checks import check_names, check_paths, check_shapes
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.dataset import Dataset


def from_tfds(
    name: str,
    split: str = "train",
    *,
    image: str = "image",
    label: str = "label",
    group: str | None = None,
    size: tuple[int, int] | None = None,
    data_dir: str | Path | None = None,
) -> Dataset:
    """A class-major data set from a prepared TFDS data set.

    The set must lie on disk in the `array_record` format, which is read without
    TensorFlow. Preparing it may need TensorFlow, `pip install "jaxmeta[tf]"`:

        import tensorflow_datasets as tfds
        config = tfds.download.DownloadConfig(manual_dir=FOLDER)  # of archives you have
        builder = tfds.builder("omniglot", data_dir=DIR, file_format="array_record")
        builder.download_and_prepare(download_config=config)

    Args:
        name: of the set, with config and version if wanted ("mnist", "cifar100:3.0.2").
        split: as TFDS spells it: "train", "test[:50%]", "train+test".
        image, label: names of the features with the example (uint8 [h, w, c]) and its
            class (integer). Images that are 0 and 1 throughout, which is what TFDS reads
            of black and white files, are taken as black and white.
        group: name of the feature (integer) with the group of its class: "alphabet".
        size: (height, width) to bring images to, by Lanczos; needed where they differ.
        data_dir: where the set lies; None = TFDS's default.

    Returns: a `Dataset`, classes and groups named as in the set.
    Raises: FileNotFoundError if the set is not prepared (or not in array_record), with
        the commands that do it; ValueError for unknown names, splits or features.
    """
    check_names(name=name, split=split, image=image, label=label)
    if group is not None:
        check_names(group=group)
    if size is not None:
        check_shapes(2, size=size)
    if data_dir is not None:
        check_paths(data_dir=data_dir)
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"from_tfds: tensorflow-datasets knows no set {name!r} and none is prepared "
            f"in {data_dir or 'its default folder'}"
        ) from error
    try:
        source: Any = builder.as_data_source(split=split)
    except (NotImplementedError, AssertionError) as error:
        where = f", data_dir={str(data_dir)!r}" if data_dir else ""
        raise FileNotFoundError(
            f"from_tfds: {name} is not prepared in the array_record format in "
            f"{builder.data_path}; prepare it once, which may need TensorFlow (pip install "
            f"'jaxmeta[tf]'): tensorflow_datasets.builder({name!r}{where}, "
            "file_format='array_record').download_and_prepare()"
        ) from error
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"from_tfds: {name} has no split {split!r}; expected one of (or a slice of) "
            f"{', '.join(builder.info.splits)}"
        ) from error
    features = builder.info.features
    for feature in (image, label, group or label):
        if feature not in features:
            raise ValueError(
                f"from_tfds: {name} has no feature {feature!r}; expected one of "
                f"{', '.join(sorted(features))} for image=, label= and group="
            )
    examples = [source[i] for i in range(len(source))]
    images = _brightness([example[image] for example in examples])
    images = [_resized(i, size) for i in images]
    shapes = sorted({i.shape for i in images})
    if len(shapes) > 1:
        raise ValueError(
            f"from_tfds: the images of {name} differ in shape ({shapes[0]}, {shapes[1]}, "
            "...); give size=(height, width)"
        )
    spelled = lambda feature, i: getattr(features[feature], "names", range(i + 1))[i]
    groups = group and [str(spelled(group, int(e[group]))) for e in examples]
    labels = np.array([int(example[label]) for example in examples])
    made = from_arrays(np.stack(images), labels, groups=groups, name=name, split=split)
    return replace(
        made, classes=tuple(str(spelled(label, int(c))) for c in made.classes)
    )


def _brightness(images: list[np.ndarray]) -> list[np.ndarray]:
    """In 0..255, also those of one bit, which TFDS reads as 0 and 1."""
    bits = all(i.dtype == np.uint8 and i.max(initial=0) <= 1 for i in images)
    return [255 * i for i in images] if bits else images


def _resized(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    if size is None or image.shape[:2] == size:
        return image
    from PIL import Image

    squeezed = image[..., 0] if image.shape[-1] == 1 else image
    picture = Image.fromarray(squeezed).resize(
        (size[1], size[0]), Image.Resampling.LANCZOS
    )
    return np.asarray(picture).reshape(*size, -1)
