"""What the Hydra group `dataset` says, as a typed object."""

from __future__ import annotations

from dataclasses import dataclass

_DEFAULT = {"food101": "validation"}  # `test_split` in conf/dataset; `test` of all others


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """One data set and where it comes from.

    Attributes:
        name: How the data set is called; `digits` is the one that ships with scikit-learn.
        path: A local copy (Parquet files, class folders, what `save_to_disk` left); None takes the data from the Hub.
        train_limit: At most this many training samples, a seeded subset with the classes in proportion.
        test_limit: The same for the test samples.
        max_side: Images whose longer side exceeds this many pixels are shrunk to it, once.
        augment: The training transform that suits the data set: `none` or `paper`.
        hub: Id on the Hugging Face Hub; None where there is none.
        image_column: Column of the encoded images, in Parquet files and on the Hub.
        label_column: Column of the integer labels.
        train_split: Name of the training split.
        test_split: Name of the split to test on.
    """

    name: str
    path: str | None = None
    train_limit: int | None = None
    test_limit: int | None = None
    max_side: int | None = None
    augment: str = "none"
    hub: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    train_split: str = "train"
    test_split: str = "test"

    @property
    def test_names(self) -> tuple[str, ...]:
        """Names under which a local copy may keep its test samples, the preferred one first; one where it is typed."""
        usual = ("test", "validation", "valid", "val") if self.test_split == _DEFAULT.get(self.name, "test") else ()
        return tuple(name for name in dict.fromkeys((self.test_split, *usual)) if name != self.train_split)
