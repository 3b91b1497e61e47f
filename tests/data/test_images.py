"""Image files as arrays: every kind that Pillow knows, and what is said of broken ones."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import images

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
GREYS = np.array([[0, 257, 32896], [128 * 257, 65535, 300]], np.uint16)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def file(image, format="PNG", **options) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    written = io.BytesIO()
    image.save(written, format, **options)
    return written.getvalue()


def red_and_clear(mode: str) -> Image.Image:
    """Left red, right transparent over black."""
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    return image.convert(mode)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_colours_stay_what_they_are(format):
    np.testing.assert_array_equal(images.decoded(file(RAMP, format), "x"), RAMP)


def test_each_mode_is_brought_to_8_bits():
    expected = [[0, 1, 128], [128, 255, 1]]  # 257 steps of 16 bits are one of 8
    for format in ("PNG", "TIFF"):
        grey = images.decoded(file(GREYS, format), "x", mode="L")
        assert grey.shape == (2, 3, 1) and grey[..., 0].tolist() == expected
        colour = images.decoded(file(GREYS, format), "x")
        assert colour.shape == (2, 3, 3) and colour[..., 2].tolist() == expected
    written = b"P5 3 2 65535\n" + GREYS.astype(">u2").tobytes()
    assert images.decoded(written, "x", mode="L")[..., 0].tolist() == expected
    bits = file(Image.fromarray(RAMP[..., 0]).convert("1", dither=0))
    assert set(images.decoded(bits, "x").ravel().tolist()) == {0, 255}
    palette = Image.fromarray(RAMP).convert("P", palette=Image.Palette.ADAPTIVE)
    assert abs(images.decoded(file(palette), "x").astype(int) - RAMP).max() <= 5
    cmyk = images.decoded(
        file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), "x"
    )
    assert cmyk.shape == (8, 8, 3) and (cmyk[0, 0] > [240, -1, -1]).all()
    assert cmyk[..., 1:].max() < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparent_is_white(mode):
    image = red_and_clear(mode if mode in ("RGBA", "LA", "P") else "RGBA").convert(mode)
    options = {"RGB": {"transparency": (0, 0, 0)}, "L": {"transparency": 0}}
    left, right = images.decoded(file(image, **options.get(mode, {})), "x")[0].tolist()
    assert right == [255] * 3
    assert left == ([76] * 3 if "L" in mode else [255, 0, 0])


def test_a_moving_picture_is_its_first_frame():
    frames = [Image.new("P", (3, 2), c) for c in (1, 2)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 10, 20, 30, 200, 200, 200])
    written = file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (images.decoded(written, "x") == [10, 20, 30]).all()


def test_sizes_and_resampling():
    half = np.zeros((4, 8), np.uint8)
    half[:, 4:] = 200
    wide = images.decoded(file(half), "x", (2, 4), "L")
    assert wide.shape == (2, 4, 1)
    assert images.decoded(file(half), "x", 3).shape == (3, 3, 3)
    for name, value in {
        "box": 100,
        "bilinear": 100,
    }.items():  # the mean of what is covered
        (pixel,) = images.decoded(file(half), "x", 1, "L", resample=name).ravel()
        assert pixel == value
    stripes = np.zeros((8, 8), np.uint8)
    stripes[:, ::2] = 200
    near = images.decoded(file(stripes), "x", 4, "L", resample="nearest")
    assert set(near.ravel().tolist()) <= {0, 200}
    with pytest.raises(
        ValueError, match="resample: expected one of nearest, .*got 'x'"
    ):
        images.decoded(file(half), "x", 3, resample="x")
    with pytest.raises(ValueError, match="mode: expected one of RGB, L"):
        images.decoded(file(half), "x", 3, "RGBA")


def test_the_orientation_of_a_camera_is_not_applied():
    turned = Image.Exif()
    turned[0x0112] = 6
    assert images.decoded(file(RAMP[:2], "PNG", exif=turned), "x").shape == (2, 4, 3)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that declares side x side pixels."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", head),
        chunk(b"IDAT", zlib.compress(b"")),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


JPEG = file(NOISE, "JPEG")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "a.jpg: the file is empty .*; fetch it again"),
        (
            b"<html>not found</html>",
            "a.jpg: not an image of JPEG.*begins with b'<html>",
        ),
        (JPEG[: len(JPEG) // 2], "a.jpg: the image is truncated or broken .*again"),
        (JPEG[:20], "a.jpg: "),
        (file(NOISE)[:-400], "a.jpg: the image is truncated or broken"),
        (file(NOISE, "GIF")[:-400], "a.jpg: the image is truncated or broken"),
        (
            bomb(8001),
            "a.jpg: the image declares 64,016,001 pixels, more than 64,000,000",
        ),
        (bomb(10_000), "a.jpg: .*100000000 pixels"),  # Pillow warns of it
        (bomb(60_000), "a.jpg: .*3600000000 pixels.*leave this file out"),
        (file(Image.new("F", (2, 2)), "TIFF"), "a.jpg: its pixels are floating .*save"),
        (file(Image.new("I", (2, 2)), "TIFF"), "a.jpg: its pixels are 32 bit .*save"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a.jpg: not an image"),  # runs no program
    ],
)
def test_what_is_no_image_is_said(content, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        images.decoded(content, "a.jpg")
    assert type(caught.value) is ValueError
    with warnings.catch_warnings():  # as it is where warnings are no errors
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="a.jpg: "):
            images.decoded(content, "a.jpg")


def test_any_broken_byte_is_an_image_or_a_sentence():
    random = np.random.default_rng(1)
    kinds = [
        file(NOISE[:9, :9], k) for k in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in kinds * 20:
            broken = bytearray(content)
            for place in random.integers(0, len(content), 3):
                broken[place] = random.integers(256)
            try:
                assert images.decoded(bytes(broken), "a", 4).shape == (4, 4, 3)
            except ValueError as error:
                assert str(error).startswith("a: "), error


def test_files_are_decoded_in_order(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for i, path in enumerate(paths):
        path.write_bytes(file(np.full((5, 4 + i), i, np.uint8)))
    made = images.decoded_files(paths, str, 3, "L")
    assert made.shape == (9, 3, 3, 1) and made[:, 0, 0, 0].tolist() == list(range(9))
    paths[4].write_bytes(b"")
    with pytest.raises(ValueError, match="4.png: the file is empty"):
        images.decoded_files(paths, str, 3)
