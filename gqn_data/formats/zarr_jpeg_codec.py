"""The Zarr codec `imagecodecs_jpeg`, for machines without the public package `imagecodecs`.

`zarr` finds it through the entry point in pyproject.toml, so any program can read a dataset's frames. If the public
package is installed, `JpegCodec` is its codec.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from gqn_data.schema import jpeg

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

_NAME = "imagecodecs_jpeg"
_DEFAULT_QUALITY = 95


@dataclass(frozen=True)
class _OwnJpegCodec(ArrayBytesCodec):
    """Codec for chunks of one RGB JPEG each, with our JPEG library.

    Attributes:
        configuration: configuration in the metadata, preserved unchanged. `level` is the quality for encoding.
    """

    is_fixed_size = False
    configuration: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Create the codec from its metadata entry."""
        return cls(dict(data.get("configuration") or {}))

    def to_dict(self) -> dict[str, Any]:
        """Return the metadata entry of the codec."""
        if self.configuration:
            return {"name": _NAME, "configuration": self.configuration}
        return {"name": _NAME}

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        pixels = np.empty(chunk_spec.shape, np.uint8)
        jpeg.decode_into(chunk_bytes.to_bytes(), pixels.reshape(chunk_spec.shape[-3:]))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        pixels = np.asarray(chunk_array.as_numpy_array(), np.uint8)
        quality = int(self.configuration.get("level") or _DEFAULT_QUALITY)
        encoded = jpeg.encode(pixels.reshape(pixels.shape[-3:]), quality)
        return chunk_spec.prototype.buffer.from_bytes(encoded)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:  # noqa: ARG002
        """Raise TypeError: the size varies. zarr calls this only for codecs of a fixed size."""
        raise TypeError(f"{_NAME}: the encoded size varies")


def _codec() -> type[ArrayBytesCodec]:
    try:
        from imagecodecs.zarr import Jpeg
    except ImportError:
        return _OwnJpegCodec
    public: type[ArrayBytesCodec] = Jpeg
    return public


JpegCodec = _codec()
