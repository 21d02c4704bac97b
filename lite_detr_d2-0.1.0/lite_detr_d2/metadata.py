"""The names of classes, for datasets that are not there: a model that only predicts is built without them."""

from collections.abc import Iterable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

_lent: set[str] = set()


def lend_class_names(names: Sequence[str], datasets: Iterable[str]) -> None:
    """Give datasets that are not registered, and whose classes have no names, these ones.

    Whatever looks into ``MetadataCatalog`` then finds them: ``DefaultPredictor.metadata``, or SAHI. Those of another
    model are replaced.
    """
    for dataset in datasets:
        if dataset in DatasetCatalog:
            continue
        take_back(dataset)
        metadata = MetadataCatalog.get(dataset)
        if metadata.get("thing_classes") is None:
            metadata.thing_classes = list(names)
            _lent.add(dataset)


def take_back(dataset: str) -> None:
    """Forget the names that a dataset was given, before it gets its own: detectron2 lets none be exchanged."""
    if dataset in _lent:
        _lent.discard(dataset)
        MetadataCatalog.pop(dataset, None)
