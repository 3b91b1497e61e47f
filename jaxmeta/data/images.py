"""Image files become arrays: the one place that trusts no file and knows Pillow's modes."""

import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxmeta.checks import check_choice

# formats that are only decoded; others call programs (PostScript) or need plugins
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES += (".tif", ".tiff", ".webp")
MODES = {"RGB": 3, "L": 1}
RESAMPLINGS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
MOST_PIXELS = 64_000_000  # that an image may declare


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
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_pixels(what, image.width * image.height)
            image.load()
            plain = _plain(image, what).convert(mode)
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
    if size is not None:
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        plain = plain.resize((width, height), Image.Resampling[resample.upper()])
    return np.array(plain, np.uint8).reshape(plain.height, plain.width, MODES[mode])


def decoded_files(
    files: Sequence[Path],
    said: Callable[[Path], str],
    size: int | tuple[int, int],
    mode: str = "RGB",
    *,
    resample: str = "bilinear",
) -> np.ndarray:
    """`decoded` of each file, [files, height, width, channels], on all cores.

    Args: said, what to call a file in messages; the others are those of `decoded`.
    """

    def one(file: Path) -> np.ndarray:
        return decoded(file.read_bytes(), said(file), size, mode, resample=resample)

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        # what a camera noted is broken in many files of ImageNet, and not read here
        warnings.filterwarnings("ignore", module="PIL")
        return np.stack(list(pool.map(one, files)))


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
