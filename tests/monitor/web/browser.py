"""How Debian's Chromium is started: nothing of it asks the network."""

from __future__ import annotations

from playwright.sync_api import ViewportSize

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
SIZE = ViewportSize(width=1280, height=720)
