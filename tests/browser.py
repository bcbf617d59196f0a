"""A real browser for tests of pages: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Where the browser is; None where there is none."""
    return next((place for place in map(shutil.which, NAMES) if place), None)


def executable() -> str:
    """Where the browser is; the test is skipped, with a clear word, where there is none."""
    found = find()
    if found is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(NAMES)}): apt-get install chromium")
    return found


@dataclass
class Heard:
    """What a page said and asked for that it must not: console messages, errors, requests of the network."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    place = executable()
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def visit(browser: Any, file: Path, hash: str = "", **context: Any) -> tuple[Any, Heard]:
    """Open a page from disk and wait until it is ready; says what it heard meanwhile and later."""
    heard = Heard()
    page = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | context)).new_page()
    page.on("console", lambda message: heard.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (heard.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(("file:", "data:", "blob:")) else heard.asked.append(request.url)
        ),
    )
    page.goto(file.as_uri() + hash)
    page.wait_for_function("document.documentElement.dataset.ready")
    return page, heard


def settled(page: Any) -> None:
    """Wait until what was asked of the page is shown."""
    page.wait_for_function("document.documentElement.dataset.busy === 'false'")


def download(page: Any, selector: str) -> bytes:
    """What a button saves."""
    with page.expect_download() as waiting:
        page.click(selector)
    return Path(waiting.value.path()).read_bytes()
