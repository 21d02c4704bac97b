"""What inputs are found, what they are called, and where their pictures go."""

import os
from pathlib import Path, PurePath

import pytest

from lite_detr_d2.deploy.media import Media, find_media, plan_outputs
from lite_detr_d2.errors import InputError

OUT = Path("out")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def names(*inputs: str, output: Path = OUT) -> list[str]:
    return [media.name.as_posix() for media in find_media(inputs, output)]


@pytest.mark.usefixtures("place")
class TestWhatIsFound:
    def test_a_folder_with_those_below_it(self, log: pytest.LogCaptureFixture) -> None:
        touch("photos/b.JPG", "photos/a.png", "photos/deep/er/c.webp", "photos/clip.MOV")
        touch("photos/notes.txt", "photos/.hidden.jpg", "photos/.git/d.jpg", "photos/Thumbs.db")
        assert names("photos") == ["a.png", "b.JPG", "clip.MOV", "deep/er/c.webp"]
        assert "photos: passed over, as not named as images or videos (1): notes.txt" in log.text

    def test_a_folder_too_deep_is_said(self, said: list[str]) -> None:
        touch("photos/a.jpg", "photos/1/2/3/4/5/6/7/8/b.jpg", "photos/1/2/3/4/5/6/7/8/9/c.jpg")
        assert names("photos") == ["1/2/3/4/5/6/7/8/b.jpg", "a.jpg"]
        assert said == ["Folders more than 8 levels below photos are left out: photos/1/2/3/4/5/6/7/8/9"]

    def test_a_file_by_its_name_whatever_that_is(self) -> None:
        touch("photos/a", "photos/.b.jpg")
        assert names("photos/a", "photos/.b.jpg") == [".b.jpg", "a"]

    def test_patterns(self, log: pytest.LogCaptureFixture) -> None:
        touch("day1/a.jpg", "day1/x.txt", "day2/in/b.jpg", "other/c.jpg")
        assert names("day*/*.jpg") == ["day1/a.jpg"]
        assert names("./day[12]/**/*.jpg") == ["day1/a.jpg", "day2/in/b.jpg"]
        assert names("day?") == ["day1/a.jpg", "day2/in/b.jpg"]
        assert "(1): day1/x.txt" in log.text

    def test_a_file_whose_name_looks_like_a_pattern(self) -> None:
        touch("a[1].jpg", "a1.jpg")
        assert names("a[1].jpg") == ["a[1].jpg"]

    def test_each_file_once(self, place: Path) -> None:
        touch("photos/a.jpg", "photos/b.jpg")
        assert names("photos", "photos/a.jpg", "./photos/*.jpg", str(place / "photos" / "b.jpg")) == ["a.jpg", "b.jpg"]

    def test_cameras(self) -> None:
        (first,) = find_media(["webcam"], OUT)
        (second,) = find_media(["webcam:12"], OUT)
        assert (first.camera, first.is_video, first.output_name) == (0, True, PurePath("webcam.mp4"))
        assert (second.camera, second.output_name) == (12, PurePath("webcam_12.mp4"))
        touch("webcam")
        (file,) = find_media(["./webcam"], OUT)
        assert file.camera is None

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (["missing.jpg"], r"no file or folder missing\.jpg"),
            (["webcam:one"], "no file or folder webcam:one"),
            (["*.tiff"], r"No file matches \*\.tiff: correct the pattern\.$"),
            (["~/*.tiff"], r"correct the pattern\. The ~ in it is for the shell"),
            (["$HOME/a.jpg"], r"correct the name\. The \$ in it is for the shell"),
            (["{a,b}/*.jpg"], r"correct the pattern\. The \{ in it is for the shell"),
            (["two\nlines.jpg"], r"no file or folder two\\nlines\.jpg: correct the name\.$"),
            (["empty"], "The folder empty has no images or videos"),
            (["texts"], "The folder texts has no images or videos"),
            (["texts/*"], r"What matches texts/\* has no images or videos"),
            (["photos", "webcam"], "webcam goes on until it is stopped"),
            (["webcam", "webcam:1"], "webcam goes on until it is stopped"),
        ],
    )
    def test_what_is_not_there(self, inputs: list[str], message: str) -> None:
        touch("texts/a.txt", "photos/a.jpg")
        Path("empty").mkdir()
        with pytest.raises(InputError, match=message):
            find_media(inputs, OUT)

    @pytest.mark.parametrize("output", ["photos/out", "photos/../photos/out", "link", "photos/deep/out"])
    def test_pictures_of_an_earlier_prediction_are_no_inputs(self, output: str, log: pytest.LogCaptureFixture) -> None:
        touch("photos/a.jpg", "photos/out/a.jpg", "photos/out/deep/b.jpg", "photos/deep/out/c.jpg", "photos/d/out.jpg")
        Path("link").symlink_to("photos/out")
        inside = {"deep/out/c.jpg"} if output.endswith("deep/out") else {"out/a.jpg", "out/deep/b.jpg"}
        for given in ("photos", "photos/**/*.jpg"):
            found = names(given, output=Path(output))
            assert set(found) == {"a.jpg", "out/a.jpg", "out/deep/b.jpg", "deep/out/c.jpg", "d/out.jpg"} - inside
            assert f"passed over, as in the output folder ({len(inside)})" in log.text
            log.clear()


@pytest.mark.usefixtures("place")
class TestNames:
    def test_two_of_one_name_keep_their_folders(self) -> None:
        touch("x/one/a.jpg", "x/two/a.jpg", "x/two/b.jpg")
        assert names("x/one/a.jpg", "x/two/a.jpg", "x/two/b.jpg") == ["one/a.jpg", "two/a.jpg", "two/b.jpg"]
        assert names("x/one", "x/two") == ["one/a.jpg", "two/a.jpg", "two/b.jpg"]
        assert names("x/one/a.jpg", "x/two/b.jpg") == ["a.jpg", "b.jpg"]

    @pytest.mark.parametrize(
        ("name", "output"),
        [
            ("a.jpg", "a.jpg"),
            ("A.JPEG", "A.JPEG"),
            ("a.tif", "a.tif"),
            ("a.gif", "a.gif.png"),
            ("a.pgm", "a.pgm.png"),
            ("a.jp2", "a.jp2.png"),
            ("scan", "scan.png"),
            ("clip.mp4", "clip.mp4"),
            ("clip.MP4", "clip.MP4"),
            ("clip.avi", "clip.avi.mp4"),
        ],
    )
    def test_formats_are_kept_where_they_are_written(self, name: str, output: str) -> None:
        touch(name)
        (media,) = find_media([name], OUT)
        assert plan_outputs([media], OUT) == {media: OUT / output}

    def test_a_change_of_format_is_said(self, log: pytest.LogCaptureFixture) -> None:
        touch("photos/a.gif", "photos/b.jpg")
        plan_outputs(find_media(["photos"], OUT), OUT)
        assert "another format than the input's (1): a.gif.png" in log.text


@pytest.mark.usefixtures("place")
class TestNothingIsWrittenOver:
    @pytest.mark.parametrize("output", ["photos", "./photos/", "photos/../photos", "link", "absolute"])
    def test_an_input(self, place: Path, output: str) -> None:
        touch("photos/a.jpg")
        Path("link").symlink_to("photos")
        folder = place / "photos" if output == "absolute" else Path(output)
        for given in ("photos", "photos/a.jpg", "photos/*", "link/a.jpg"):
            with pytest.raises(InputError, match=r"a\.jpg is the input (photos|link)/a\.jpg, which is never written"):
                plan_outputs(find_media([given], folder), folder)

    def test_an_input_that_another_one_would_overwrite(self) -> None:
        touch("photos/in/a.jpg", "photos/a.jpg")
        with pytest.raises(InputError, match=r"photos/in/\.\./a\.jpg is the input photos/a\.jpg"):
            plan_outputs(find_media(["photos/in/a.jpg", "photos/a.jpg", "photos/in"], Path("x")), Path("photos/in/.."))

    def test_a_link_to_an_input_from_the_output_folder(self) -> None:
        touch("photos/a.jpg", "out/x")
        os.link("photos/a.jpg", "out/a.jpg")
        with pytest.raises(InputError, match=r"out/a\.jpg is the input photos/a\.jpg"):
            plan_outputs(find_media(["photos"], OUT), OUT)

    def test_one_picture_by_another(self) -> None:
        touch("photos/a.gif", "photos/a.gif.png")
        with pytest.raises(InputError, match=r"a\.gif and photos/a\.gif\.png would both be written to out/a\.gif\.png"):
            plan_outputs(find_media(["photos"], OUT), OUT)

    def test_a_recording(self) -> None:
        touch("out/webcam.mp4")
        with pytest.raises(InputError, match=r"out/webcam\.mp4 is there, and a recording is not written over"):
            plan_outputs(find_media(["webcam"], OUT), OUT)

    def test_an_earlier_picture_is(self) -> None:
        touch("photos/a.jpg", "out/a.jpg")
        assert list(plan_outputs(find_media(["photos"], OUT), OUT).values()) == [OUT / "a.jpg"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("file", "file is a file, and is to be the folder of the pictures: name another"),
        ("file/below", "The folder file/below cannot be made: .* Name another"),
    ],
)
def test_an_output_that_cannot_be_a_folder(place: Path, output: str, message: str) -> None:
    touch("file", "a.jpg")
    with pytest.raises(InputError, match=message):
        plan_outputs([Media(place / "a.jpg", PurePath("a.jpg"))], Path(output))


def test_an_output_that_is_read_only(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("a.jpg")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="The folder out cannot be written to: give the permission"):
        plan_outputs([Media(place / "a.jpg", PurePath("a.jpg"))], OUT)
