"""What normalising looks for: every check, with what is done about it. The ids are stable."""

from typing import Any

from ..findings import Check, Severity
from ..images import ImageHeader

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


def _unusable(id: str, message: str, cure: str) -> Check:
    """Something that somebody meant, and that cannot be used: an error, unless it is to be dropped."""
    return Check(id, _ERROR, message, cure, droppable=True)


# The lists of a file, and their records.
ANNOTATIONS_UNREADABLE = Check(
    "annotations-unreadable", _ERROR, "an annotation file cannot be read", "restore it, or export it again"
)
NO_IMAGES = Check("no-images", _ERROR, "there are no images")
NO_CATEGORIES = Check("no-categories", _ERROR, "there are no categories")
NOTHING_TO_TRAIN_ON = Check("nothing-to-train-on", _ERROR, "there are no annotations to train on")
NOTHING_TO_SCORE = Check("nothing-to-score", _WARNING, "there are no annotations", repair="detections are not scored")
ONLY_CROWDS = Check(
    "only-crowds",
    _WARNING,
    "all annotations are of crowds ('iscrowd' 1), which leaves nothing to train on or to score",
    "set 'iscrowd' to 0 where an annotation is of one object",
)
RECORD = _unusable("record-unusable", "a record is no object, or lacks a key that it needs", "complete or remove it")
UNUSED_FILE = Check("file-unused", _WARNING, "an annotation file beside those of the dataset is not used")

# Categories.
CATEGORY = Check("category-unusable", _ERROR, "a category needs an 'id' and a 'name'", "give it both")
CATEGORY_CONFLICT = Check(
    "category-conflict", _ERROR, "categories contradict each other", "give each one 'id' and one 'name', in all files"
)
CATEGORY_TYPE = Check(
    "category-type", _WARNING, "a category's 'id' is no integer below 2**53, or its 'name' no text", repair="converted"
)
CATEGORY_NAME = Check(
    "category-name", _WARNING, "a category's 'name' has blanks around it, or decomposed letters", repair="put in order"
)
CATEGORY_TWICE = Check("category-twice", _WARNING, "a category is listed twice", repair="listed once")
CATEGORY_ROOT = Check(
    "category-root",
    _INFO,
    "a category is only the 'supercategory' of others, and has no annotation",
    repair="it is no class",
)
CATEGORY_UNLISTED = Check(
    "category-unlisted", _INFO, "a half's 'categories' lack some of another's", repair="the classes are those of all"
)
CLASS_UNTRAINED = Check("class-untrained", _WARNING, "classes without an annotation to train on")
CLASS_UNSCORED = Check("class-unscored", _INFO, "classes without an annotation to evaluate on")

# Images.
IMAGE_ID_TYPE = Check(
    "image-id-type",
    _WARNING,
    "an image's 'id' is no integer below 2**53",
    repair="converted, or replaced by a new number",
)
IMAGE_ID_TWICE = Check(
    "image-id-twice", _ERROR, "the 'id' of an image is used by more than one image", "give each image its own"
)
IMAGE_LISTED_TWICE = Check("image-listed-twice", _WARNING, "an image is listed twice", repair="listed once")
IMAGE_REPEATED = Check(
    "image-repeated",
    _WARNING,
    "the same image file has several image ids",
    repair="made one image with the boxes of all, each box once",
)
LABELS_UNREADABLE = _unusable(
    "labels-unreadable", "an image's annotation file cannot be read", "restore it, or remove it and the image"
)
IMAGE_MISSING = _unusable("image-missing", "an image file is missing", "put it there, or remove the image")
IMAGE_UNREADABLE = _unusable(
    "image-unreadable",
    "an image file cannot be read",
    "restore it, make it smaller if it is too large, or remove the image",
)
IMAGE_NAME = Check(
    "image-name",
    _WARNING,
    "a 'file_name' is not that of the file, but for its case, Unicode form, separators or leading folders",
    repair="the file is used",
)
IMAGE_SIZE = _unusable(
    "image-size",
    "an image is not of its stated size (width x height)",
    "correct 'width' and 'height', or restore the image that the boxes were drawn on",
)
IMAGE_ORIENTATION = _unusable(
    "image-orientation",
    "an image's orientation tag turns it: its stated size is that of the unturned picture",
    "if the boxes were drawn on the unturned picture, remove the tag from the file; else exchange 'width' and 'height'",
)


def wrong_size(header: ImageHeader, stated: tuple[Any, Any]) -> Check:
    """What is wrong with a stated (width, height) that is not the displayed one."""
    return IMAGE_ORIENTATION if header.is_unturned(stated) else IMAGE_SIZE


# What restoring a file mends, without a change of the annotations.
OF_FILES = {check.id for check in (IMAGE_MISSING, IMAGE_UNREADABLE, IMAGE_SIZE, IMAGE_ORIENTATION)}
IMAGE_SIZE_MISSING = Check(
    "image-size-missing", _WARNING, "an image has no usable 'width' and 'height'", repair="taken from the file"
)
IMAGE_SIZE_TYPE = Check("image-size-type", _WARNING, "'width' or 'height' is no integer", repair="converted")
IMAGE_DEPTH = Check(
    "image-depth",
    _WARNING,
    "an image has a bit depth of more than 8 bits",
    "INPUT.MAX_VALUE, which --dataset sets, scales those of all images alike",
    repair="its values are scaled to 8",
)

# Annotations.
NO_SUCH_IMAGE = _unusable(
    "annotation-without-image", "an annotation's 'image_id' is not in 'images'", "add the image, or remove it"
)
NO_SUCH_CATEGORY = _unusable(
    "annotation-without-category", "an annotation's 'category_id' is not in 'categories'", "add the category"
)
REFERENCE_TYPE = Check(
    "reference-type", _WARNING, "an 'image_id' or 'category_id' is of another type than the 'id'", repair="converted"
)
ANNOTATION_ID = Check(
    "annotation-id",
    _WARNING,
    "annotations' 'id' are missing, used twice, or no positive integers below 2**53",
    repair="all are renumbered",
)
ANNOTATION_ID_ZERO = Check(
    "annotation-id-zero",
    _INFO,
    "an annotation has the 'id' 0, which COCO's scorer takes for none",
    repair="all are renumbered",
)
BOX_MISSING = Check(
    "box-missing", _WARNING, "an annotation has a 'segmentation' and no 'bbox'", repair="the box is its extent"
)
BOX_TYPE = Check("box-type", _WARNING, "a 'bbox' holds numbers as text", repair="converted")
BOX_NOT_NUMBERS = _unusable(
    "box-not-numbers", "a 'bbox' is not four finite numbers: x, y, width, height", "correct or remove it"
)
BOX_NEGATIVE = _unusable(
    "box-negative", "a 'bbox' has a negative side", "COCO's boxes are x, y, width, height in pixels"
)
BOX_OUTSIDE = _unusable("box-outside", "a 'bbox' lies outside its image", "correct or remove it")
BOX_FRACTION = _unusable(
    "box-fraction",
    "a 'bbox' is in fractions of 1, not in pixels",
    "multiply x and width by the image's width, y and height by its height",
)
BOX_CORNERS = _unusable(
    "box-corners", "a 'bbox' holds two corners, not x, y, width, height", "subtract the first corner from the second"
)
BOX_CORNERS_PERHAPS = Check(
    "box-corners-perhaps",
    _WARNING,
    "each 'bbox' may be two corners as well as x, y, width, height, and no 'area' or polygon tells",
    "look at some in a picture; if they are corners, subtract the first from the second",
)
BOX_EMPTY = Check("box-empty", _WARNING, "a 'bbox' has no area", repair="left out")
BOX_CLIPPED = Check("box-clipped", _WARNING, "a 'bbox' reaches beyond its image", repair="clipped to the image")
AREA = Check("area", _WARNING, "'area' is missing, or impossible for its box", repair="the box's area takes its place")
CROWD = Check(
    "crowd",
    _WARNING,
    "an annotation is of a crowd ('iscrowd' 1)",
    repair="left out of training, and not scored as missed",
)
CROWD_VALUE = _unusable("crowd-value", "'iscrowd' is neither 0 nor 1", "set it to 0, or to 1 for a group of objects")
CROWD_MISSING = Check("crowd-missing", _WARNING, "'iscrowd' is missing or no integer", repair="read as 0 or 1")
IGNORE = Check(
    "ignore", _WARNING, "an annotation is to be ignored ('ignore')", repair="treated as a crowd, 'iscrowd' 1"
)
SEGMENTATION = Check(
    "segmentation", _WARNING, "a 'segmentation' is no polygon or RLE", repair="it is removed, its box is used"
)
KEYPOINTS = Check("keypoints", _WARNING, "'keypoints' are no triples of numbers", repair="removed, the box is used")
