"""Detections as COCO's results: which image and which category each is of."""

import json
from pathlib import Path, PurePath
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances

from lite_detr_d2.deploy.media import Media
from lite_detr_d2.deploy.results import names_of, own_names, results_file
from lite_detr_d2.errors import InputError

CLASSES = ["cat", "dog"]


def media(*paths: str) -> list[Media]:
    return [Media(Path(path), PurePath(Path(path).name)) for path in paths]


def detections(*labels: int) -> Instances:
    count = len(labels)
    boxes = torch.tensor([[1.5, 2.0, 11.5, 42.0]]).repeat(count, 1)
    scores = torch.linspace(0.75, 0.25, count)
    return Instances((50, 60), pred_boxes=Boxes(boxes), scores=scores, pred_classes=torch.tensor(labels, dtype=int))


def annotation_file(folder: Path, *images: str, categories: Any = ("dog", "cat"), annotations: Any = ()) -> Path:
    file = folder / "val.json"
    content = {
        "images": [{"id": 100 + number, "file_name": name} for number, name in enumerate(images)],
        "categories": [{"id": 7 + number, "name": name} for number, name in enumerate(categories)],
        "annotations": list(annotations),
    }
    file.write_text(json.dumps(content))
    return file


def ids(file: Path, *paths: str) -> dict[str, Any]:
    return {str(item.path): found for item, (found, _) in names_of(file, media(*paths), CLASSES).images.items()}


class TestOwnNames:
    def test_images_count_in_their_order_and_classes_from_1(self) -> None:
        first, second = media("b/x.jpg", "a/y.jpg")
        names = own_names([first, second], CLASSES)
        assert names.records(second, detections(1, 0)) == [
            {
                "image_id": 2,
                "file_name": "y.jpg",
                "category_id": 2,
                "category_name": "dog",
                "bbox": [1.5, 2.0, 10.0, 40.0],
                "score": 0.75,
            },
            {
                "image_id": 2,
                "file_name": "y.jpg",
                "category_id": 1,
                "category_name": "cat",
                "bbox": [1.5, 2.0, 10.0, 40.0],
                "score": 0.25,
            },
        ]
        assert names.records(first, detections()) == []

    def test_frames_of_videos(self) -> None:
        (clip,) = media("clip.mp4")
        (record,) = own_names([clip], CLASSES).records(clip, detections(0), frame=0)
        assert (record["image_id"], record["file_name"], record["frame"]) == (1, "clip.mp4", 0)


class TestImagesOfAnAnnotationFile:
    @pytest.mark.parametrize("name", ["a.jpg", "images/a.jpg", "./images/a.jpg", "../images/a.jpg", "images\\a.jpg"])
    def test_paths_that_end_with_the_file_name(self, tmp_path: Path, name: str, said: list[str]) -> None:
        file = annotation_file(tmp_path, name)
        for path in ("images/a.jpg", "/data/images/a.jpg", "./images/../images/a.jpg"):
            assert ids(file, path) == {str(Path(path)): 100}
        assert said == []

    def test_a_relative_path_goes_by_where_it_leads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "val").mkdir()
        monkeypatch.chdir(tmp_path / "val")
        assert ids(annotation_file(tmp_path, "train/a.jpg", "val/a.jpg"), "a.jpg") == {"a.jpg": 101}

    def test_the_longest_end_wins(self, tmp_path: Path, said: list[str]) -> None:
        file = annotation_file(tmp_path, "a.jpg", "val/a.jpg", "x/train/a.jpg")
        paths = ("/d/val/a.jpg", "/d/x/train/a.jpg", "/d/x/val/a.jpg")
        with pytest.raises(InputError, match=r"/d/val/a\.jpg and /d/x/val/a\.jpg could both be 'val/a\.jpg'"):
            ids(file, *paths)
        assert ids(file, *paths[:2]) == {paths[0]: 101, paths[1]: 102}
        assert len(said) == 1
        assert "has 3 images, of which 1 are no inputs" in said[0]

    def test_names_that_differ_in_their_normal_form_only(self, tmp_path: Path) -> None:
        assert ids(annotation_file(tmp_path, "caf\u00e9.jpg"), "cafe\u0301.jpg") == {"cafe\u0301.jpg": 100}

    def test_another_folder_is_taken_and_said(self, tmp_path: Path, said: list[str]) -> None:
        assert ids(annotation_file(tmp_path, "train/a.jpg"), "/moved/a.jpg") == {"/moved/a.jpg": 100}
        assert said == ["Inputs that are taken for images of other folders (1): /moved/a.jpg for 'train/a.jpg'"]

    def test_the_input_in_the_right_folder_comes_first(self, tmp_path: Path, said: list[str]) -> None:
        file = annotation_file(tmp_path, "train/a.jpg")
        assert ids(file, "/d/val/a.jpg", "/d/train/a.jpg") == {"/d/train/a.jpg": 100}
        assert len(said) == 1
        assert said[0].endswith("are left out of the JSON (1): /d/val/a.jpg")

    def test_an_ambiguous_name(self, tmp_path: Path) -> None:
        file = annotation_file(tmp_path, "train/a.jpg", "val/a.jpg")
        with pytest.raises(InputError, match=r"/d/a\.jpg could be any of 'train/a\.jpg', 'val/a\.jpg' of .*val\.json"):
            ids(file, "/d/a.jpg")
        with pytest.raises(InputError, match=r"could be any of 'a\.jpg', 'a\.jpg'"):
            ids(annotation_file(tmp_path, "a.jpg", "a.jpg"), "/d/a.jpg")
        with pytest.raises(InputError, match=r"/x/a\.jpg and /y/a\.jpg could both be 'a\.jpg'"):
            ids(annotation_file(tmp_path, "a.jpg"), "/x/a.jpg", "/y/a.jpg")

    def test_what_has_no_counterpart_is_said(self, tmp_path: Path, said: list[str]) -> None:
        file = annotation_file(tmp_path, "a.jpg", "b.jpg", "c.jpg")
        one, other = media("a.jpg", "z.jpg")
        names = names_of(file, [one, other], CLASSES)
        assert said == [
            f"Inputs that are not in {file}, and are left out of the JSON (1): z.jpg",
            f"{file} has 3 images, of which 2 are no inputs: a score counts their boxes as not found.",
        ]
        assert names.records(other, detections(0)) == []
        assert len(names.records(one, detections(0))) == 1

    def test_the_annotations_of_other_images(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"val\.json has none of the inputs \(z\.jpg\)"):
            ids(annotation_file(tmp_path, "a.jpg"), "z.jpg")

    def test_videos_have_none(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"not of videos \(clip\.avi, clip\.mp4\): leave out --annotations"):
            ids(annotation_file(tmp_path, "a.jpg"), "a.jpg", "clip.avi", "clip.mp4")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "is missing"),
            ("{", "is not JSON"),
            ("[]", "holds a list"),
            ('{"images": []}', "no list 'categories'"),
        ],
    )
    def test_a_file_that_cannot_be_read(self, tmp_path: Path, text: str | None, message: str) -> None:
        file = tmp_path / "val.json"
        if text is not None:
            file.write_text(text)
        with pytest.raises(InputError, match=message):
            ids(file, "a.jpg")


class TestCategoriesOfAnAnnotationFile:
    def test_by_name(self, tmp_path: Path) -> None:
        (item,) = media("a.jpg")
        names = names_of(annotation_file(tmp_path, "a.jpg", categories=("dog", "bird", " cat ")), [item], CLASSES)
        records = names.records(item, detections(0, 1))
        assert [(record["category_id"], record["category_name"]) for record in records] == [(9, "cat"), (7, "dog")]
        assert {record["file_name"] for record in records} == {"a.jpg"}

    def test_a_missing_one_is_left_out_and_said(self, tmp_path: Path, said: list[str]) -> None:
        (item,) = media("a.jpg")
        file = annotation_file(tmp_path, "a.jpg", categories=("dog",))
        names = names_of(file, [item], CLASSES)
        assert [record["category_name"] for record in names.records(item, detections(0, 1, 0))] == ["dog"]
        left_out = "whose detections are left out (1): cat"
        assert said == [f"Classes of the model that {file} does not have, {left_out}"]

    def test_those_of_another_model(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"none of the model's classes \(cat, dog\), but car, bus"):
            ids(annotation_file(tmp_path, "a.jpg", categories=("car", "bus")), "a.jpg")

    def test_two_of_one_name(self, tmp_path: Path) -> None:
        categories = ("cat", "dog", "cat")
        used = [{"category_id": 9, "image_id": 100}]
        names = names_of(
            annotation_file(tmp_path, "a.jpg", categories=categories, annotations=used), media("a.jpg"), CLASSES
        )
        assert list(names.categories) == [9, 8]
        with pytest.raises(InputError, match=r"several categories 'cat', with ids \[7, 9\]"):
            ids(annotation_file(tmp_path, "a.jpg", categories=categories), "a.jpg")


class TestTheFile:
    def test_it_is_a_list_that_grows(self, tmp_path: Path) -> None:
        path = tmp_path / "results.json"
        with results_file(path) as results:
            results.add([{"n": 1}, {"n": 2}])
            results.add([])
            results.add([{"n": "\udc80"}])
            assert not path.exists()
        assert json.loads(path.read_text()) == [{"n": 1}, {"n": 2}, {"n": "\udc80"}]
        assert os_names(path.parent) == ["results.json"]

    def test_it_may_be_empty(self, tmp_path: Path) -> None:
        with results_file(tmp_path / "results.json"):
            pass
        assert json.loads((tmp_path / "results.json").read_text()) == []

    def test_what_breaks_off_leaves_what_was_there(self, tmp_path: Path) -> None:
        path = tmp_path / "results.json"
        path.write_text("before")
        with pytest.raises(ZeroDivisionError), results_file(path) as results:
            results.add([{"n": 1 / 0}])
        with results_file(path) as results:
            results.add([{"n": 1}])
            results.complete = False
        assert path.read_text() == "before"
        assert os_names(tmp_path) == ["results.json"]

    def test_it_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for name, message in (
            ("file/results.json", "file is a file, not a folder. Name another"),
            ("new/results.json", "there is no folder .*new. Make it first, or correct the name"),
            ("", "is a folder: name a file"),
        ):
            with pytest.raises(InputError, match=message), results_file(tmp_path / name):
                pass
        assert os_names(tmp_path) == ["file"]


def os_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
