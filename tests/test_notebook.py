"""The notebook for newcomers runs from top to bottom."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples/quickstart.ipynb"
MAX_BYTES = 200_000


def _outputs(notebook):
    """What cells printed, and the kinds of pictures that they showed."""
    text, pictures = "", []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text += output.get("text", "")
            pictures += [kind for kind in output.get("data", ())
                         if kind.startswith("image/")]
    return text, pictures


def _check(notebook):
    text, pictures = _outputs(notebook)
    assert pictures == ["image/png"] * 2
    score, = re.findall(r"^average mAP (\d+\.\d)$", text, re.MULTILINE)
    assert 0 <= float(score) <= 100
    truth, found = text.split("what happens:")[1].split("what was found")
    row = r"^ +(\d+\.\d) \.\. +(\d+\.\d) s  (\w+)"
    assert 3 <= len(re.findall(row, truth, re.M)) <= 6
    found = re.findall(row, found, re.M)
    assert len(found) == 8
    assert all(float(start) < float(end) for start, end, _ in found)


def test_the_notebook_is_stored_with_what_it_showed():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    assert not [output for cell in notebook.cells
                for output in cell.get("outputs", ())
                if output.output_type == "error"]
    _check(notebook)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, one_device):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            # The same way with fewer steps on it.
            for long, short in (("steps = 40", "steps = 4"),
                                ("warmup_steps = 10", "warmup_steps = 1"),
                                ("schedule_epochs = 8",
                                 "schedule_epochs = 2"),
                                ("from_epoch = 8", "from_epoch = 2")):
                cell.source = cell.source.replace(long, short)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute(env={**one_device, "TMPDIR": str(tmp_path), "TQDM_DISABLE": "1"})
    _check(notebook)
