"""Curves of one or several trainings: which there are, what they are called, and what cannot be drawn."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from lite_detr_d2.errors import InputError

from .scripts import load_script

plot_metrics = load_script("plot_metrics")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    save = Figure.savefig

    def saved(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    return figures


def run(folder: Path, *records: dict[str, float]) -> Path:
    folder.mkdir(parents=True)
    lines = [json.dumps(record) for record in records]
    (folder / "metrics.json").write_text("\n".join([*lines, '{"iterat']))  # of a training that was killed
    return folder


def panels(figure: Figure) -> dict[str, list[Any]]:
    return {axes.get_title(): axes.get_lines() for axes in figure.axes if axes.get_visible()}


def test_one_training(tmp_path: Path, drawn: list[Figure], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(
        tmp_path / "mine",
        {"iteration": 19, "total_loss": 9.0, "loss_ce": 1.0, "lr": 1e-4},
        {"iteration": 29, "bbox/AP": 30.0, "bbox_ema/AP": 31.0},
        {"iteration": 39, "total_loss": 5.0, "loss_ce": 0.5, "lr": 1e-4},
    )
    plot_metrics.main([str(folder)])
    assert capsys.readouterr().out == f"{folder / 'curves.png'} is written.\n"
    assert Image.open(folder / "curves.png").size[0] == 1440
    (figure,) = drawn
    found = panels(figure)
    assert list(found) == ["total loss", "AP (%)", "losses of the last layer", "learning rate"]
    (loss,) = found["total loss"]
    assert (list(loss.get_xdata()), list(loss.get_ydata())) == ([19, 39], [9.0, 5.0])
    assert [list(line.get_ydata()) for line in found["AP (%)"]] == [[30.0], [31.0]]
    assert not figure.legends


def test_what_a_resumed_training_repeats_is_drawn_once(tmp_path: Path, drawn: list[Figure]) -> None:
    """It went back from iteration 59 to 29, and anew from there."""
    losses = [(19, 9.0), (39, 8.0), (59, 7.0), (39, 6.0), (59, 5.0), (79, 4.0)]
    folder = run(tmp_path / "mine", *({"iteration": iteration, "total_loss": loss} for iteration, loss in losses))
    plot_metrics.main([str(folder)])
    (line,) = panels(drawn[0])["total loss"]
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [(19, 9.0), (39, 6.0), (59, 5.0), (79, 4.0)]


def test_several_side_by_side(tmp_path: Path, drawn: list[Figure]) -> None:
    first = run(tmp_path / "a" / "run", {"iteration": 0, "total_loss": 2.0})
    second = run(tmp_path / "b" / "$run", {"iteration": 0, "total_loss": 1.0, "grad_norm": 0.1})
    plot_metrics.main([str(first), str(second / "metrics.json"), "--output", str(tmp_path / "both.png")])
    (figure,) = drawn
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a/run", r"b/\$run"]
    assert {title: [len(line.get_xdata()) for line in lines] for title, lines in panels(figure).items()} == {
        "total loss": [1, 1],
        "gradient norm": [0, 1],
    }
    assert not (first / "curves.png").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"metrics\.json cannot be read: No such file or directory\. Name the OUTPUT_DIR of a training\."),
        (b"", r"there are no figures of a training in them\."),
        (b"[1]\n3\n{}\nx", r"there are no figures of a training in them\."),
        (b"\xff\xfe", r"cannot be read: it is no text\."),
    ],
)
def test_what_cannot_be_drawn(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        plot_metrics.main([str(tmp_path)])
    assert not (tmp_path / "curves.png").exists()


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    folder = run(tmp_path / "mine", {"iteration": 0, "total_loss": 2.0})
    with pytest.raises(InputError, match=r"a\.xyz is not named as a picture: let it end in \.png, or one of "):
        plot_metrics.main([str(folder), "--output", str(tmp_path / "a.xyz")])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    folder = run(tmp_path / "mine", {"iteration": 0, "total_loss": 2.0})
    with pytest.raises(InputError, match=r"there is no folder .*none\. Make it first, or correct the name\."):
        plot_metrics.main([str(folder), "--output", str(tmp_path / "none" / "a.png")])
