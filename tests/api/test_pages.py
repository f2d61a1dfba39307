from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.routes.pages import FOLDER

from .conftest import Reading


@pytest.fixture
def client(reading: Reading) -> TestClient:
    return reading.client


@pytest.mark.parametrize(("path", "title"), [("/", "Paretoformer"), ("/docs", "API")])
def test_pages_are_ours_alone_and_carry_no_inline_code(
    client: TestClient, path: str, title: str
) -> None:
    response = client.get(path, params={"from": "a-link"})
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = response.text
    assert f"<title>{title}" in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page)
    for address in re.findall(r'(?:src|href)="([^"#]*)"', page):
        if address and not address.startswith("data:"):
            assert address.startswith("/")
            assert client.get(address).is_success


def test_scripts_insert_text_never_markup_and_know_no_other_host() -> None:
    for script in FOLDER.glob("*.js"):
        source = script.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source
        )
        assert set(re.findall(r"https?://[^\"'` ]+", source)) <= {"http://www.w3.org/2000/svg"}


def test_every_name_that_the_scripts_look_up_is_on_the_page() -> None:
    for page, script in (("index.html", "dashboard.js"), ("docs.html", "docs.js")):
        known = set(re.findall(r'id="([^"]+)"', (FOLDER / page).read_text()))
        wanted = set(re.findall(r'\bat\("([^"]+)"\)', (FOLDER / script).read_text()))
        assert wanted <= known


def test_labels_and_controls_can_be_read_out(client: TestClient) -> None:
    page = client.get("/").text
    for control in re.findall(r"<(?:select|progress|svg|dialog)\b[^>]*>", page):
        named = "aria-label" in control or "<label>" in page.split(control)[0].rpartition("\n")[2]
        assert named, control
    for button in re.findall(r"<button[^>]*>(.*?)</button>", page):
        assert button.strip()


@pytest.mark.parametrize(
    "path", ["/", "/dashboard/dashboard.js", "/v1/metrics", "/v1/nothing", "/healthz"]
)
def test_every_answer_is_hardened(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_only_the_pages_folder_is_served(client: TestClient) -> None:
    for path in ("/dashboard/..%2fapp.py", "/dashboard/%2e%2e/app.py", "/dashboard/"):
        assert client.get(path).status_code == 404
    assert {p.suffix for p in Path(FOLDER).iterdir()} == {".html", ".css", ".js"}
