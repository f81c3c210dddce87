"""Screenshots with a palette of 256 colours, for pictures that are committed: a third of the size of true colour."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser

COLOURS = 256
ROUNDS = 5
_DECODE = """async (data) => {
  const image = new Image();
  image.src = "data:image/png;base64," + data;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const bytes = context.getImageData(0, 0, image.width, image.height).data;
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return [image.width, image.height, btoa(text)];
}"""


def shrink(browser: Browser, path: Path) -> None:
    """Write the picture again; the browser reads it."""
    page = browser.new_page()
    width, height, text = page.evaluate(_DECODE, base64.b64encode(path.read_bytes()).decode())
    page.close()
    pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height * width, 4)[:, :3]
    colours, places = palette(pixels)
    path.write_bytes(png(width, height, colours, places))


def palette(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours and the place of each pixel among them: the most frequent ones, moved by a few rounds of k-means."""
    unique, inverse, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    points, weights = unique.astype(np.float64), np.sqrt(counts)
    centres = points[np.argsort(-counts)[:COLOURS]]
    for _ in range(ROUNDS):
        nearest = _nearest(points, centres)
        total = np.bincount(nearest, weights, len(centres))
        for channel in range(3):
            sums = np.bincount(nearest, weights * points[:, channel], len(centres))
            centres[:, channel] = np.where(total > 0, sums / np.maximum(total, 1e-9), centres[:, channel])
    return centres.round().astype(np.uint8), _nearest(points, centres)[inverse.ravel()].astype(np.uint8)


def png(width: int, height: int, colours: NDArray[np.uint8], places: NDArray[np.uint8]) -> bytes:
    """A picture of colour type 3, rows unfiltered."""
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = places.reshape(height, width)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [
        (b"IHDR", head),
        (b"PLTE", colours.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*c) for c in chunks)


def _nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    parts = np.array_split(points, 1 + len(points) // 2000)
    return np.concatenate([np.argmin(((part[:, None] - centres) ** 2).sum(axis=2), axis=1) for part in parts])


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
