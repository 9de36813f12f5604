"""Checks of user-supplied scenes: the first must be valid for a dataset, and all others must match it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gqn_data.errors import CorruptFrame, OptionError
from gqn_data.schema.jpeg import FrameChecker, check_scans, header_of, orientation_of
from gqn_data.schema.layout import SceneLayout, layout_fault
from gqn_data.schema.manifest import Encoding
from gqn_data.schema.scene import Encoded, Scene


class SceneChecker:
    """Makes scenes from user input, and checks them against a reference scene once there is one.

    Args:
        camera_fields: names of a camera's numbers.

    Raises:
        OptionError: the names are invalid.
    """

    def __init__(self, camera_fields: Sequence[str]) -> None:
        self.camera_fields = _checked_fields(camera_fields)
        self._layout: SceneLayout | None = None
        self._encoding: Encoding | None = None
        self._jpegs: FrameChecker | None = None

    def check(
        self, frames: NDArray[np.uint8] | Sequence[Encoded], cameras: ArrayLike, where: str
    ) -> tuple[Scene, SceneLayout]:
        """Return the checked scene and its layout.

        Args:
            frames: uint8 (views, height, width, 3), or the JPEG bytes of each view.
            cameras: (views, camera numbers).
            where: name of the scene, for messages.

        Raises:
            OptionError: the scene is invalid, or differs from the reference in shape or encoding.
            CorruptFrame: a frame is not a valid JPEG, or has another size.
        """
        encoded = None if isinstance(frames, np.ndarray) else _as_encoded(frames, where)
        layout = self._layout or self._first_layout(frames, encoded, where)
        numbers = _checked_cameras(cameras, layout, where)
        if encoded is None:
            assert isinstance(frames, np.ndarray)  # noqa: S101  for mypy: it is one or the other
            if frames.dtype != np.uint8 or frames.shape != layout.frames_shape:
                raise OptionError(
                    f"{where}: found frames {frames.dtype} {frames.shape}, expected uint8 {layout.frames_shape}"
                )
            scene = Scene(numbers, pixels=np.ascontiguousarray(frames))
        else:
            if len(encoded) != layout.views:
                raise OptionError(f"{where}: found {len(encoded)} views, expected {layout.views}")
            self._check_jpegs(encoded, layout, where)
            scene = Scene(numbers, encoded=encoded, size=(layout.height, layout.width))
        if self._encoding not in (None, encoding_of(scene)):
            kinds = {"raw": "arrays", "jpeg": "JPEG bytes"}
            found, expected = kinds[encoding_of(scene)], kinds[str(self._encoding)]
            raise OptionError(f"{where}: found {found}, expected {expected} as in the first scene")
        return scene, layout

    def set_reference(self, scene: Scene, layout: SceneLayout) -> None:
        """Require all further scenes to match this one."""
        self._layout, self._encoding = layout, encoding_of(scene)

    def _first_layout(self, frames: Any, encoded: list[bytes] | None, where: str) -> SceneLayout:
        if encoded is None:
            shape = frames.shape
            if frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
                raise OptionError(
                    f"{where}: found frames {frames.dtype} {shape}, expected uint8 (views, height, width, 3)"
                )
            views, height, width, _ = shape
        else:
            views = len(encoded)
            try:
                height, width, _ = header_of(encoded[0]) if encoded else (0, 0, 0)
            except CorruptFrame as error:
                raise CorruptFrame(f"{where}: view 0: {error}; pass complete JPEG files") from error
        fault = layout_fault(views, height, width)
        if fault is not None:
            raise OptionError(f"{where}: {fault}")
        return SceneLayout(
            views=views, height=height, width=width, camera_fields=self.camera_fields, because="the first scene was so"
        )

    def _check_jpegs(self, encoded: Sequence[bytes], layout: SceneLayout, where: str) -> None:
        jpegs = self._jpegs or FrameChecker(layout.height, layout.width)
        for view, jpeg in enumerate(encoded):
            try:
                jpegs.check(jpeg, 0, len(jpeg))
                check_scans(jpeg, layout.height * layout.width)
            except CorruptFrame as error:
                raise CorruptFrame(f"{where}: view {view}: {error}; all frames of a dataset have one size") from error
            if (found := orientation_of(jpeg)) != 1:
                raise OptionError(
                    f"{where}: view {view}: found a rotated JPEG (EXIF orientation {found}), expected an upright one. "
                    "Pass its pixels after PIL.ImageOps.exif_transpose"
                )
        if self._layout is not None:
            self._jpegs = jpegs  # it caches the headers that it has checked


def encoding_of(scene: Scene) -> Encoding:
    """Return the encoding of a scene's frames."""
    return "raw" if scene.encoded is None else "jpeg"


def _checked_fields(fields: Sequence[str]) -> tuple[str, ...]:
    named = tuple(fields)
    good = not isinstance(fields, str) and all(isinstance(name, str) and name.isprintable() and name for name in named)
    if not good or not 1 <= len(named) <= 64 or len(set(named)) != len(named):
        raise OptionError(f"camera_fields: found {fields!r}, expected 1 to 64 different names")
    return named


def _as_encoded(frames: Any, where: str) -> list[bytes]:
    """Return copies of the JPEG bytes, because the caller may change a memory view."""
    kinds = (bytes, bytearray, memoryview)
    if isinstance(frames, (*kinds, str)) or not all(isinstance(frame, kinds) for frame in frames):
        raise OptionError(
            f"{where}: found frames {type(frames).__name__}, "
            "expected an array uint8 (views, height, width, 3), or a list of JPEG bytes"
        )
    return [bytes(frame) for frame in frames]


def _checked_cameras(cameras: ArrayLike, layout: SceneLayout, where: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # an overflow gives inf, which is rejected below
            checked = np.array(cameras, np.float32)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{where}: found cameras {type(cameras).__name__}, expected numbers ({error})") from error
    if checked.shape != layout.cameras_shape:
        fields = ", ".join(layout.camera_fields)
        raise OptionError(f"{where}: found cameras {checked.shape}, expected {layout.cameras_shape}: {fields} per view")
    if not np.isfinite(checked).all():
        view = int(np.argwhere(~np.isfinite(checked))[0][0])
        raise OptionError(f"{where}: view {view}: found the camera {checked[view].tolist()}, expected finite numbers")
    return checked
