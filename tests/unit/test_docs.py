"""The documentation agrees with itself and with the program: links, manifests, commands, pages."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import docs_site
from crossfade.api import reference
from crossfade.api.parse import parse_spec
from crossfade.cli import command

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *DOCS.rglob("*.md"),
        *(ROOT / "helm").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def prose(page: Path) -> str:
    """A page without what is shown as code."""
    return re.sub(r"`[^`\n]+`", "code", FENCE.sub("", page.read_text()))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for _, language, text in FENCE.findall(page.read_text()):
        if language in languages:
            yield text


def headings(page: Path) -> list[str]:
    without_code = FENCE.sub("", page.read_text())
    return re.findall(r"^#+ (.+?) *$", without_code, re.MULTILINE)


def plain(heading: str) -> str:
    return re.sub(r"\]\([^)]*\)", "", heading).replace("`", "").replace("*", "").lower()


def github_anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", plain(heading)).replace(" ", "-")


def mkdocs_anchor(heading: str) -> str:
    """As Python-Markdown's toc makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain(heading)).strip())


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page that GitHub and, in docs/, mkdocs both make."""
    found = Counter(github_anchor(it) for it in headings(page))
    shared = {mkdocs_anchor(it) for it in headings(page)} if DOCS in page.parents else set(found)
    return frozenset(it for it, number in found.items() if number == 1 and it in shared)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def manifests() -> Iterator[Any]:
    """Whole ModelDeployments that pages show."""
    for page in PAGES:
        for number, block in enumerate(blocks(page, "yaml")):
            if "kind: ModelDeployment" not in block:
                continue
            for document in yaml.safe_load_all(block):
                if document["kind"] == "ModelDeployment":
                    yield pytest.param(document, id=f"{name_of(page)}-{number}")


@pytest.mark.parametrize("manifest", list(manifests()))
def test_every_modeldeployment_that_is_shown_is_valid(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    assert parse_spec(manifest).model.name
    file = tmp_path / "shown.yaml"
    file.write_text(yaml.safe_dump(manifest))
    assert command.main(["validate", "-f", str(file)]) == 0


def test_every_page_that_migrates_or_guides_shows_a_whole_manifest() -> None:
    shown = {it.id.rpartition("-")[0] for it in manifests()}
    wanted = {name_of(it) for kind in ("from", "howto") for it in DOCS.glob(f"{kind}-*.md")}
    assert wanted
    assert wanted <= shown


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each simple command in the shell blocks of a page."""
    for block in blocks(page, "sh", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # a quoted text over several lines
                continue
            simple: list[str] = []
            for word in [*words, ";"]:
                if word in {"|", "||", "&&", "&", ";"}:
                    yield simple
                    simple = []
                else:
                    simple.append(word)


def verbs(page: Path) -> Iterator[list[str]]:
    for words in commands(page):
        if words[:2] == ["kubectl", "crossfade"]:
            yield words[2:]
        elif words[:1] == ["crossfade"]:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_ours_that_is_shown_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page):
        if words[:1] == ["make"]:
            assert {it for it in words[1:] if "=" not in it} <= targets
        if "-m" in words and words[words.index("-m") - 1].endswith("python"):
            module = words[words.index("-m") + 1]
            assert importlib.util.find_spec(module), module
    for words in verbs(page):
        if words[:1] not in (["__complete"], ["completion"]):
            command._parser().parse_args(words)


def test_there_are_commands_to_check() -> None:
    assert ["make", "demo"] in list(commands(ROOT / "README.md"))
    assert any(words[:1] == ["explain"] for words in verbs(DOCS / "tour.md"))


def pages_of(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for entry in nav.values():
            yield from pages_of(entry)
    elif isinstance(nav, list):
        for entry in nav:
            yield from pages_of(entry)


def test_the_site_names_every_page_once_and_no_other() -> None:
    nav = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(str(it.relative_to(DOCS)) for it in DOCS.rglob("*.md"))


def test_the_site_tells_where_a_file_of_the_repository_is() -> None:
    text = "See [an example](../examples/drift.yaml), [more](how.md#x) and `[a](../b)`."
    assert docs_site.on_page_markdown(text, src_uri="a.md") == (
        "See an example (`examples/drift.yaml`), [more](how.md#x) and `[a](../b)`."
    )
    assert docs_site.on_page_markdown("[up](../how.md)", src_uri="adr/1.md") == "[up](../how.md)"


def test_the_reference_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert reference.main(["--check"]) == 0


def test_the_reference_is_written_and_a_stale_one_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    assert reference.main(["--check"]) == 1
    assert reference.COMMAND in capsys.readouterr().err
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    written = tmp_path / reference.REFERENCE_PATH
    written.write_text(written.read_text() + "by hand\n")
    assert reference.main(["--check"]) == 1


def test_the_reference_has_every_object_with_its_fields_bounds_and_rules() -> None:
    text = reference.render_reference()
    assert "\n### spec.analysis.metrics[].errorRate.worseThanStable\n" in text
    assert "\n### status.rollout\n" in text
    assert "| **weightPercent** | integer from 1 to 100 |" in text
    assert "| minIncreasePercent | number from 0 below 100 |" in text
    assert "- give exactly one of errorRate, latency, drift and query" in text
    assert "spec.template.spec" not in text
