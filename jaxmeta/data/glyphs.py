"""Letters drawn from the typefaces that matplotlib ships: real images, no download.

A class is a letter, its examples are typefaces (DejaVu, STIX, Computer Modern). Scripts
are split: train on Latin, Greek and Cyrillic, validate on Armenian, test on Georgian
and Lao, so that test scripts are unseen.
"""

import functools
import unicodedata
from pathlib import Path

import numpy as np

from jaxmeta.checks import check_choice
from jaxmeta.data.cache import cached
from jaxmeta.data.dataset import Dataset, of_classes

SPLITS = {
    "train": ("Latin", "Greek", "Cyrillic"),
    "validation": ("Armenian",),
    "test": ("Georgian", "Lao"),
}
# Unicode blocks of the scripts, first and last code point
BLOCKS = {
    "Latin": (0x0041, 0x024F),
    "Greek": (0x0370, 0x03FF),
    "Cyrillic": (0x0400, 0x052F),
    "Armenian": (0x0531, 0x0587),
    "Georgian": (0x10A0, 0x10FF),
    "Lao": (0x0E81, 0x0EDD),
}
STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
SERIF_STYLES = ("", "-Bold", "-Italic", "-BoldItalic")
TYPEFACES = (
    *(f"DejaVuSans{style}" for style in STYLES),
    *(f"DejaVuSansMono{style}" for style in STYLES),
    *(f"DejaVuSerif{style}" for style in SERIF_STYLES),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)
FEWEST = 8  # typefaces a letter must have
SIZE = 28
OVERSAMPLING = 4
VERSION = 1  # of the drawing below; raise it when the images change


def glyphs(split: str = "train") -> Dataset:
    """Letters of six scripts, 28 x 28, drawn = 1, identical for a matplotlib version.

    Letters with accents are left out, and of letters that look the same (Latin A,
    Greek Alpha) only the first is kept. Drawn once in about a second, then cached.

    Args: split: "train" (Latin, Greek, Cyrillic), "validation" (Armenian) or "test"
        (Georgian, Lao); "all" has every script.
    Returns: a `Dataset`, images uint8 [28, 28, 1], of a letter in up to 21 typefaces; a
        class is named by its Unicode name, a group by its script.
    Raises: ValueError for an unknown split.

    >>> data = glyphs("test")
    >>> sorted(set(data.groups)), data.x.shape[1:], bool(data.counts.min() >= 8)
    (['Georgian', 'Lao'], (28, 28, 1), True)
    """
    check_choice("split", split, (*SPLITS, "all"))
    everything = _everything()
    scripts = BLOCKS if split == "all" else SPLITS[split]
    chosen = [i for i, group in enumerate(everything.groups) if group in scripts]
    return everything.select(chosen, split)


@functools.cache
def _everything() -> Dataset:
    """All letters, read once a process: a run asks for three splits."""
    packed = _drawn()
    # one flat array: a letter a row, its code point and count before its images
    codes = packed[:, :4].copy().view("<u4")[:, 0]
    counts = packed[:, 4].astype(np.int32)
    images = packed[:, 5:].reshape(len(packed), -1, SIZE, SIZE, 1)
    return of_classes(
        "glyphs",
        "all",
        [a[:n] for a, n in zip(images, counts, strict=True)],
        tuple(unicodedata.name(chr(code)).lower() for code in codes),
        tuple(_script(code) for code in codes),
    )


def _drawn() -> np.ndarray:
    import matplotlib

    version = f"{VERSION} {matplotlib.__version__}"
    return cached("glyphs", version, _draw_all)


def _draw_all() -> np.ndarray:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [FT2Font(str(folder / f"{name}.ttf")) for name in TYPEFACES]
    covered = [
        _covered(name, font) for name, font in zip(TYPEFACES, fonts, strict=True)
    ]
    seen, rows = set(), []
    for code in _letters():
        have = [
            font for font, codes in zip(fonts, covered, strict=True) if code in codes
        ]
        if len(have) < FEWEST:
            continue
        images = [_draw(font, code) for font in have]
        if images[0].tobytes() in seen:  # looks like an earlier letter
            continue
        seen.add(images[0].tobytes())
        head = np.frombuffer(np.uint32(code).astype("<u4").tobytes(), np.uint8)
        body = np.zeros((len(fonts), SIZE, SIZE), np.uint8)
        body[: len(images)] = images
        rows.append(np.concatenate([head, [len(images)], body.ravel()]))
    return np.stack(rows).astype(np.uint8)


def _letters():
    for first, last in BLOCKS.values():
        for code in range(first, last + 1):
            letter = chr(code)
            is_letter = unicodedata.category(letter) in ("Lu", "Ll", "Lo")
            if is_letter and unicodedata.normalize("NFD", letter) == letter:
                yield code


def _covered(name, font) -> set[int]:
    codes = set(font.get_charmap())
    # Computer Modern has other signs at the places of most letters
    ascii_letters = {c for c in codes if c < 128 and chr(c).isalpha()}
    return ascii_letters if name.startswith("cm") else codes


def _script(code: int) -> str:
    return next(s for s, (first, last) in BLOCKS.items() if first <= code <= last)


def _draw(font, code: int) -> np.ndarray:
    """[28, 28] uint8: the outline at four times the size without hinting, averaged."""
    from matplotlib.ft2font import LoadFlags

    font.clear()
    font.set_size(18 * OVERSAMPLING, 72)  # 18 pixels an em: the widest letters fit
    font.set_text(chr(code), 0.0, flags=LoadFlags.NO_HINTING)
    font.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(font.get_image(), np.float64)
    side = SIZE * OVERSAMPLING
    canvas = np.zeros((side, side))
    height, width = min(ink.shape[0], side), min(ink.shape[1], side)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = ink[:height, :width]
    blocks = canvas.reshape(SIZE, OVERSAMPLING, SIZE, OVERSAMPLING)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)
