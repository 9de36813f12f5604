"""JPEG headers, checks, decoding and resizing, compared with Pillow, torch and plain loops."""

import io

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from made_scenes import SIZE, pattern
from made_scenes import jpeg as encoded
from PIL import Image
from torch.nn.functional import interpolate

from gqn_data.errors import CorruptFrame, GQNError, OptionError
from gqn_data.schema import jpeg

FRAME = encoded(pattern(1, 2))


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    progressive=st.booleans(),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    comment=st.binary(max_size=300),
    optimize=st.booleans(),
)
@settings(max_examples=60)
def test_the_size_in_the_header_agrees_with_pillow(height, width, progressive, subsampling, comment, optimize):
    data = encoded(
        picture(height, width),
        progressive=progressive,
        subsampling=subsampling,
        optimize=optimize,
        **({"comment": comment} if comment else {}),
    )
    assert Image.open(io.BytesIO(data)).size == (width, height)
    found = jpeg.header_of(data)
    assert found[:2] == (height, width)
    assert found == jpeg.header_of(bytearray(data)) == jpeg.header_of(memoryview(data))
    # The header ends with the frame segment, so a table or the scan follows.
    assert data[found[2]] == 0xFF


def test_a_size_of_two_bytes_is_parsed():
    assert jpeg.header_of(encoded(picture(3, 1000)))[:2] == (3, 1000)


def test_fill_bytes_before_a_marker_are_skipped():
    assert jpeg.header_of(FRAME[:2] + b"\xff\xff\xff" + FRAME[2:])[:2] == (SIZE, SIZE)


def grey():
    file = io.BytesIO()
    Image.new("L", (SIZE, SIZE)).save(file, "JPEG")
    return file.getvalue()


def four_colours():
    file = io.BytesIO()
    Image.new("CMYK", (SIZE, SIZE)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a JPEG"),
        (b"\xff", "not a JPEG"),
        (b"\x89PNG\r\n\x1a\n", "not a JPEG: begins with 89504e47"),
        (FRAME[:2], "cut short"),
        (FRAME[:30], "cut short"),
        (b"\xff\xd8\xff\xd9", "cut short"),
        (b"\xff\xd8\x00\x01\x02\x03", "a marker was expected at byte 2"),
        (b"\xff\xd8\xff\xe0\x00\x01" + bytes(20), "cut short"),
        (grey(), "1 colour components, expected 3"),
        (four_colours(), "4 colour components, expected 3"),
    ],
)
def test_bytes_other_than_a_colour_jpeg_are_refused(data, said):
    with pytest.raises(CorruptFrame, match=said):
        jpeg.header_of(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_parsed_or_refused(data):
    try:
        height, width, length = jpeg.header_of(b"\xff\xd8" + data)
    except CorruptFrame:
        return
    assert 0 <= height < 1 << 16
    assert 0 <= width < 1 << 16
    assert length > 0


def test_a_checker_accepts_valid_frames_at_any_offset():
    frames = [
        FRAME,
        encoded(pattern(3, 1)),
        encoded(pattern(4, 1), quality=40),
        encoded(pattern(5, 1), progressive=True),
    ]
    checker = jpeg.FrameChecker(SIZE, SIZE)
    for _ in range(2):
        for frame in frames:
            checker.check(b"before" + frame + b"after", 6, 6 + len(frame))


@pytest.mark.parametrize("warm", [False, True], ids=["first frame", "later frame"])
@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (FRAME[:-1], "end marker is missing"),
        (FRAME[:-200], "end marker is missing"),
        (FRAME[:60], "cut short"),
        (FRAME[:1], "not a JPEG"),
        (b"", "not a JPEG"),
        (b"P6 16 16 255 ....", "not a JPEG"),
        (encoded(pattern(1, 1, 24)), "24x24 pixels, expected 16x16"),
        (encoded(picture(16, 8)), "8x16 pixels, expected 16x16"),
        (encoded(picture(8, 16)), "16x8 pixels, expected 16x16"),
        (grey(), "1 colour"),
    ],
)
def test_a_checker_refuses_invalid_frames(warm, frame, said):
    checker = jpeg.FrameChecker(SIZE, SIZE)
    if warm:
        checker.check(FRAME, 0, len(FRAME))
    data = FRAME + frame + FRAME
    with pytest.raises(CorruptFrame, match=said):
        checker.check(data, len(FRAME), len(FRAME) + len(frame))


def test_a_checker_works_with_more_headers_than_it_remembers():
    checker = jpeg.FrameChecker(SIZE, SIZE)
    for quality in range(20, 96, 2):  # more headers than are remembered
        frame = encoded(pattern(0, 0), quality=quality)
        checker.check(frame, 0, len(frame))
        wrong = encoded(pattern(0, 0, 32), quality=quality)
        with pytest.raises(CorruptFrame, match="32x32"):
            checker.check(wrong, 0, len(wrong))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=40)
def test_decoding_into_a_batch_agrees_with_the_jpeg_library(height, width, seed):
    data = encoded(picture(height, width, seed))
    expected = simplejpeg.decode_jpeg(data)
    batch = np.full((3, height, width, 3), 99, np.uint8)
    jpeg.decode_into(memoryview(data), batch[1])
    assert np.array_equal(batch[1], expected)
    assert (batch[[0, 2]] == 99).all()
    assert np.array_equal(jpeg.decode(data), expected)
    pillow = np.asarray(Image.open(io.BytesIO(data)), np.int16)
    assert abs(pillow - expected).max() <= 4  # builds of the library may round differently


@pytest.mark.parametrize("shape", [(15, 16, 3), (16, 15, 3), (32, 32, 3), (8, 32, 3)])
def test_decoding_into_an_array_of_another_size_is_refused(shape):
    with pytest.raises(CorruptFrame):
        jpeg.decode_into(FRAME, np.zeros(shape, np.uint8))


@pytest.mark.parametrize("data", [b"", b"GIF89a", FRAME[:100], FRAME[:-40], FRAME[2:], b"\xff\xd8\xff\xd9"])
def test_undecodable_bytes_raise_corrupt_frame(data):
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    for decode in (jpeg.decode, lambda data: jpeg.decode_into(data, out)):
        with pytest.raises(CorruptFrame, match=r"cannot be decoded|of shape"):
            decode(data)


@given(st.lists(st.tuples(st.integers(0, len(FRAME) - 1), st.integers(1, 255)), min_size=1, max_size=5))
@settings(max_examples=200)
def test_a_damaged_jpeg_decodes_or_raises_corrupt_frame(flips):
    data = bytearray(FRAME)
    for at, mask in flips:
        data[at] ^= mask
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    try:
        jpeg.decode_into(data, out)
    except GQNError as error:
        assert isinstance(error, CorruptFrame)  # noqa: PT017


@given(st.integers(1, 100))
@settings(max_examples=20)
def test_encoding_gives_a_baseline_jpeg_close_to_the_pixels(quality):
    pixels = pattern(0, 0, 32)
    data = jpeg.encode(pixels, quality)
    opened = Image.open(io.BytesIO(data))
    assert (opened.size, opened.mode, opened.format) == ((32, 32), "RGB", "JPEG")
    assert "progressive" not in opened.info
    assert data == jpeg.encode(np.asfortranarray(pixels), quality)
    if quality >= 90:
        assert abs(np.asarray(opened, np.int16) - pixels).mean() < 6


def plain_mean(frame, size):
    """Average areas with plain loops in double precision."""
    height, width = frame.shape[:2]
    out = np.zeros((size, size, 3))
    for i in range(size):
        top, bottom = i * height / size, (i + 1) * height / size
        for j in range(size):
            left, right = j * width / size, (j + 1) * width / size
            total = np.zeros(3)
            for row in range(int(top), min(height, int(np.ceil(bottom)))):
                tall = min(bottom, row + 1) - max(top, row)
                for column in range(int(left), min(width, int(np.ceil(right)))):
                    wide = min(right, column + 1) - max(left, column)
                    total += tall * wide * frame[row, column]
            out[i, j] = total / ((bottom - top) * (right - left))
    return out


@given(st.data())
@settings(max_examples=40)
def test_area_resizing_averages_over_areas(data):
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    frame = data.draw(arrays.arrays(np.uint8, (height, width, 3)))
    size = data.draw(st.integers(1, min(height, width)))
    found = jpeg.resize_area(frame, size)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    assert abs(found - plain_mean(frame, size)).max() <= 0.5 + 1e-2


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40)
def test_integer_factors_agree_with_pillows_box_filter(size, down, across, seed):
    # For other ratios Pillow's box filter uses whole pixels, and so does not average areas.
    frame = picture(size * down, size * across, seed)
    box = Image.fromarray(frame).resize((size, size), Image.Resampling.BOX)
    assert abs(jpeg.resize_area(frame, size).astype(np.int16) - np.asarray(box, np.int16)).max() <= 1


@pytest.mark.parametrize(
    ("old", "new"), [(64, 32), (64, 16), (84, 28), (84, 32), (84, 64), (128, 64), (17, 1), (34, 2)]
)
def test_batches_of_frames_are_resized_frame_by_frame(old, new):
    frames = np.random.default_rng(old).integers(0, 256, (2, 3, old, old, 3), dtype=np.uint8)
    found = jpeg.resize_area(frames, new)
    assert found.shape == (2, 3, new, new, 3)
    for batch in range(2):
        for view in range(3):
            assert np.array_equal(found[batch, view], jpeg.resize_area(frames[batch, view], new))
    assert abs(found[1, 2] - plain_mean(frames[1, 2], new)).max() <= 0.5 + 1e-2


def test_area_resizing_preserves_black_and_white():
    for value in (0, 255):
        for old, new in ((84, 32), (84, 64), (64, 32), (23, 7)):
            assert (jpeg.resize_area(np.full((old, old, 3), value, np.uint8), new) == value).all()


def test_area_resizing_to_the_same_size_changes_nothing():
    frame = picture(9, 9)
    assert np.array_equal(jpeg.resize_area(frame, 9), frame)


@pytest.mark.parametrize("size", [0, -1, 17, 100])
def test_area_resizing_refuses_larger_and_invalid_sizes(size):
    with pytest.raises(OptionError, match="cannot be resized"):
        jpeg.resize_area(picture(16, 16), size)


# Interpolation


def interpolated(frame, size):
    """Interpolate with torch, in double precision and without rounding."""
    planes = torch.tensor(frame).permute(2, 0, 1)[None].double()
    new = interpolate(planes, size=(size, size), mode="bilinear", align_corners=False, antialias=False)
    return new[0].permute(1, 2, 0).numpy()


@given(st.data())
@settings(max_examples=60)
def test_bilinear_resizing_agrees_with_torch(data):
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    frame = data.draw(arrays.arrays(np.uint8, (height, width, 3)))
    size = data.draw(st.integers(1, 45))
    found = jpeg.resize_bilinear(frame, size)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    assert abs(found - interpolated(frame, size)).max() <= 0.5 + 1e-3
    assert np.array_equal(jpeg.resize(frame, size, "bilinear"), found)


@pytest.mark.parametrize(("old", "new"), [(128, 64), (84, 64), (84, 128), (64, 84), (64, 3), (3, 64)])
def test_batches_of_frames_are_interpolated_frame_by_frame(old, new):
    frames = np.random.default_rng(old).integers(0, 256, (2, 3, old, old, 3), dtype=np.uint8)
    found = jpeg.resize(frames, new, "bilinear")
    assert found.shape == (2, 3, new, new, 3)
    for batch in range(2):
        for view in range(3):
            assert abs(found[batch, view] - interpolated(frames[batch, view], new)).max() <= 0.5 + 1e-3


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=40)
def test_integer_factors_agree_exactly_with_torch(size, factor, seed):
    frame = picture(size * factor, size * factor, seed)
    planes = torch.tensor(frame).permute(2, 0, 1)[None].double()
    mean = interpolate(planes, size=(size, size), mode="area")[0].permute(1, 2, 0).numpy()
    assert np.array_equal(jpeg.resize(frame, size, "area"), np.floor(mean + 0.5 + 1e-9))  # halves go up


def test_bilinear_resizing_preserves_one_colour_and_the_same_size():
    for value in (0, 1, 254, 255):
        for old, new in ((84, 32), (84, 100), (5, 64), (64, 1)):
            assert (jpeg.resize_bilinear(np.full((old, old, 3), value, np.uint8), new) == value).all()
    frame = picture(9, 9)
    assert np.array_equal(jpeg.resize_bilinear(frame, 9), frame)


@pytest.mark.parametrize("size", [0, -1])
def test_bilinear_resizing_refuses_sizes_below_one(size):
    with pytest.raises(OptionError, match="expected 1 pixel or more"):
        jpeg.resize(picture(4, 4), size, "bilinear")


def test_an_unknown_resize_method_is_refused():
    with pytest.raises(OptionError, match="resize is 'nearest', expected area or bilinear"):
        jpeg.resize(picture(4, 4), 2, "nearest")


def with_scans(size, scans):
    """Return a progressive JPEG whose last scan is repeated: each repeat is ten bytes and a pass over all pixels."""
    data = encoded(np.zeros((size, size, 3), np.uint8), progressive=True)
    at, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:at] + data[at:end] * scans + data[end:]


@pytest.mark.parametrize(
    "read",
    [
        jpeg.decode,
        lambda bomb: jpeg.decode_into(memoryview(bomb), np.zeros((1024, 1024, 3), np.uint8)),
        lambda bomb: jpeg.decode_all_into([memoryview(bomb)], np.zeros((1, 1024, 1024, 3), np.uint8)),
    ],
)
def test_a_jpeg_of_thousands_of_scans_is_refused_unread(read, monkeypatch):
    bomb = with_scans(1024, 4000)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("it is decoded"))
    with pytest.raises(CorruptFrame, match="scans"):
        read(bomb)


@pytest.mark.parametrize("size", [16, 64, 128, 1024, 4096])
def test_progressive_jpegs_of_any_size_decode(size):
    random = np.random.default_rng(0)
    frame = np.kron(random.integers(0, 255, (16, 16, 3)), np.ones((size // 16, size // 16, 1))).astype(np.uint8)
    assert jpeg.decode(encoded(frame, progressive=True)).shape == frame.shape


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_orientation_is_read_from_exif(orientation):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    assert jpeg.orientation_of(encoded(np.zeros((16, 16, 3), np.uint8), exif=exif)) == (orientation or 1)


def test_damaged_exif_data_counts_as_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(np.zeros((16, 16, 3), np.uint8), exif=exif)
    at = data.index(b"Exif\0\0") + 6
    for length in range(40):
        damaged = data[:at] + b"\xff" * length + data[at + length :]
        assert jpeg.orientation_of(damaged) in range(9)
