"""What decoding would take on a card's codecs."""

from __future__ import annotations

from spu_ir.targets import Target

PICTURE = 1920 * 1080
"""Pixels that a figure of the codecs counts as one: pictures, and frames of a stream."""

STREAM_RATE = 30.0
"""Frames a second of one of the streams that the codecs are rated by."""


def decode_seconds(target: Target, *, jpeg_pixels: int = 0, video_pixels: int = 0) -> float:
    """
    Seconds for which pixels of JPEGs and of frames keep all codecs of a card busy.

    A card decodes `chips * codec.jpeg` pictures, or `chips * codec.video * 30` frames, of 1080p a
    second (6960 and 192 streams on an S30); other sizes take time by their pixels. A card without
    such codecs takes none: the host decodes.
    """
    chips = target.card.chips.value
    pictures = chips * target.codec.jpeg.value * PICTURE
    frames = chips * target.codec.video.value * STREAM_RATE * PICTURE
    return (jpeg_pixels / pictures if pictures else 0.0) + (
        video_pixels / frames if frames else 0.0
    )
