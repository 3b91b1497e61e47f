"""Image files become arrays: the one place that trusts no file and knows Pillow's modes."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta.checks import check_choice, check_shapes, check_sizes, is_whole

# formats that are only decoded; others call programs (PostScript) or need plugins
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES += (".tif", ".tiff", ".webp")
MODES = {"RGB": 3, "L": 1}
RESAMPLINGS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
MOST_PIXELS = 64_000_000  # that an image may declare
MOST_BYTES = 200_000_000  # of a file


def decoded(
    content: bytes,
    what: str,
    size: int | tuple[int, int] | None = None,
    mode: str = "RGB",
    *,
    resample: str = "bilinear",
) -> np.ndarray:
    """The first frame of an image file as an array, read safely.

    Transparent parts become white, 1 bit and palettes their colours, 16 bit greys the
    nearest of 8 bits. The orientation that a camera notes (EXIF) is not applied: pixels
    stay as they are stored.

    Args:
        content: of the file, of any of `FORMATS`, told by its bytes, not its name.
        what: the file, for messages: "mini_imagenet: images/a.jpg".
        size: (height, width) to bring it to, or one number for both, whatever its
            proportions; None = as it is.
        mode: "RGB", or "L" for greys (0.299 R + 0.587 G + 0.114 B).
        resample: one of `RESAMPLINGS`, as Pillow computes them: all but "nearest" average
            over what a pixel covers when an image is made smaller.

    Returns: uint8 [height, width, channels], 3 channels or 1.
    Raises: ValueError with the file and a remedy if it is empty, truncated, no image,
        declares more than `MOST_PIXELS` pixels, or has no known range of values.
    """
    check_choice("mode", mode, MODES)
    check_choice("resample", resample, RESAMPLINGS)
    from PIL import Image

    if not content:
        raise ValueError(f"{what}: the file is empty (0 bytes); fetch it again")
    with (
        _in_words(what, content),
        Image.open(io.BytesIO(content), formats=FORMATS) as image,
    ):
        plain = _loaded(image, what, mode)
    return _array(plain, size, mode, resample)


def decoded_image(
    image: Any,
    what: str,
    size: int | tuple[int, int] | None = None,
    mode: str = "RGB",
    *,
    resample: str = "bilinear",
) -> np.ndarray:
    """As `decoded`, of an image that Pillow has opened already."""
    with _in_words(what, b""):
        plain = _loaded(image, what, mode)
    return _array(plain, size, mode, resample)


def _array(plain, size, mode: str, resample: str) -> np.ndarray:
    from PIL import Image

    if size is not None:
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        plain = plain.resize((width, height), Image.Resampling[resample.upper()])
    return np.array(plain, np.uint8).reshape(plain.height, plain.width, MODES[mode])


def _loaded(image, what: str, mode: str):
    """The image with its pixels, in 8 bits."""
    _check_pixels(what, image.width * image.height)
    image.load()
    return _plain(image, what).convert(mode)


@contextmanager
def _in_words(what: str, content: bytes) -> Iterator[None]:
    """Make a ValueError with the file and a remedy of all that Pillow raises."""
    from PIL import Image

    try:
        yield
    except _RefusalError as refusal:
        raise ValueError(str(refusal)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{what}: {error}; leave this file out") from None
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{what}: not an image of {', '.join(FORMATS)}, it begins with "
            f"{content[:12]!r}; fetch it again, or leave it out"
        ) from error
    except Warning:  # an error only where the caller made it one
        raise
    except Exception as error:  # what plugins raise on broken bytes has no end
        raise ValueError(
            f"{what}: the image is truncated or broken ({error}); fetch it again"
        ) from error


def decoded_files(
    files: Sequence[Path],
    said: Callable[[Path], str],
    size: int | tuple[int, int] | None,
    mode: str = "RGB",
    *,
    resample: str = "bilinear",
) -> np.ndarray:
    """`decoded` of each file, [files, height, width, channels], on all cores.

    Args: said, what to call a file in messages; the others are those of `decoded`.
    Raises: ValueError as `decoded`, and for two files of different sizes without `size`.
    """

    def one(file: Path) -> np.ndarray:
        try:
            if file.stat().st_size > MOST_BYTES:
                raise ValueError(
                    f"{said(file)} has {file.stat().st_size:,} bytes, more than "
                    f"{MOST_BYTES:,}; leave this file out"
                )
            content = file.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{said(file)} can't be read ({error.strerror}); expected an image file"
            ) from error
        return decoded(content, said(file), size, mode, resample=resample)

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        # what a camera noted is broken in many files of ImageNet, and not read here
        warnings.filterwarnings("ignore", module="PIL")
        images = list(pool.map(one, files))
    check_alike(images, lambda i: said(files[i]))
    return np.stack(images)


def check_size(size) -> None:
    """Raise ValueError unless it is None, a whole number, or (height, width)."""
    if is_whole(size):
        check_sizes(size=size)
    elif size is not None:
        check_shapes(2, size=size)


def check_alike(images: Sequence[np.ndarray], said: Callable[[int], str]) -> None:
    """Raise ValueError for two images of different shapes; said, what to call the i-th."""
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            one, other = (" x ".join(map(str, a.shape[:2])) for a in (images[0], image))
            raise ValueError(
                f"{said(0)} is {one} and {said(i)} is {other}; expected images of one "
                "size, give size=(height, width) to bring all to it"
            )


class _RefusalError(Exception):
    """A sentence on an image that Pillow could read and we don't."""


def _check_pixels(what: str, pixels: int) -> None:
    if pixels > MOST_PIXELS:
        raise _RefusalError(
            f"{what}: the image declares {pixels:,} pixels, more than {MOST_PIXELS:,}; "
            "make it smaller, or leave it out"
        )


def _plain(image, what: str):
    """The loaded image without transparency, 8 bits a channel."""
    from PIL import Image

    sixteen = image.mode.startswith("I;16")
    # older releases of Pillow call 16 bits I; in other formats that is any 32 bits
    if sixteen or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = np.asarray(image).astype(np.int64)  # of either byte order
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise _RefusalError(
            f"{what}: its pixels are {'floating' if image.mode == 'F' else '32 bit'} "
            "numbers, of no known range; save it with 8 or 16 bits"
        )
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, coloured)
    return image
