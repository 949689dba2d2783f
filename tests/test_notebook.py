"""The notebook for newcomers runs from top to bottom."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples/quickstart.ipynb"
MAX_BYTES = 200_000


def _outputs(notebook):
    """What cells printed, and the types of the images that they showed."""
    text, images = "", []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text += output.get("text", "")
            images += [mime for mime in output.get("data", ())
                       if mime.startswith("image/")]
    return text, images


def _check(notebook):
    text, images = _outputs(notebook)
    assert images == ["image/png"] * 2
    score, = re.findall(r"^average mAP (\d+\.\d)$", text, re.MULTILINE)
    assert 0 <= float(score) <= 100
    truth, detections = text.split("annotated actions:")[1].split(
        "detections, best first:")
    row = r"^ +(\d+\.\d) \.\. +(\d+\.\d) s  (\w+)"
    assert 3 <= len(re.findall(row, truth, re.M)) <= 6
    detections = re.findall(row, detections, re.M)
    assert len(detections) == 8
    assert all(float(start) < float(end) for start, end, _ in detections)


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
            # The same with fewer steps.
            for long, short in (("num_training=24", "num_training=6"),
                                ("schedule_epochs = 12",
                                 "schedule_epochs = 2"),
                                ("from_epoch = 12", "from_epoch = 2")):
                cell.source = cell.source.replace(long, short)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute(env={**one_device, "TMPDIR": str(tmp_path), "TQDM_DISABLE": "1"})
    _check(notebook)
