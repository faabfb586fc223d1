"""The pages of docs/ that are made from the code are those that the code makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from spu_ir.tools.reference import PAGES, main
from spu_ir.transforms.pipelines import PIPELINES
from spu_ir.universe import DIALECTS, PASSES, SPU_UNIVERSE

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), (
        "run python -m spu_ir.tools.reference docs"
    )


def test_the_command_writes_every_page(tmp_path: Path) -> None:
    main([str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == PAGES.keys()
    assert (tmp_path / "passes.md").read_text(encoding="utf-8") == PAGES["passes.md"]()


def test_every_pass_and_pipeline_is_described() -> None:
    page = PAGES["passes.md"]()
    sections = page.split("\n## ")[1:]
    assert [text.partition("\n")[0] for text in sections] == [*PASSES, "Pipelines", "Verification"]
    for text in sections[: len(PASSES)]:
        _, does, preserves = text.split("\n\n")[:3]
        assert len(does.split()) >= 4
        assert preserves.startswith(
            tuple(f"Preserves: `{kind}" for kind in ("exact", "tol", "lossy", "interface"))
        )
    assert all(f"| `{name}` |" in sections[-2] for name in PIPELINES)


def test_every_op_is_described() -> None:
    page = PAGES["dialects.md"]()
    for name in DIALECTS.keys() - {"onnx"}:
        for op in SPU_UNIVERSE.all_dialects[name]().operations:
            _, _, text = page.partition(f"\n### {op.name}\n\n")
            does, table = text.split("\n\n")[0], text.partition("\n### ")[0]
            assert does.split(), op.name
            assert not does.startswith("|"), op.name
            assert "| operand | " in table or "| result | " in table, op.name
