"""The data sets that are known by name: their files, where these are, and how they are read."""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.datasets.cifar_file import read_cifar_arrays
from training.datasets.download import Archive
from training.datasets.idx_file import read_idx_arrays
from training.input_format import default_class_names

Arrays = tuple[np.ndarray, np.ndarray]


class Part(NamedTuple):
    """The training or the test images of a data set.

    Attributes
    ----------
    shape : (N, C, H, W)
        Shape of the images.
    checksums : dict of str to str
        SHA-256 of each file as its authors published it, by its name, in the order that the reader
        expects.
    """

    shape: tuple[int, int, int, int]
    checksums: dict[str, str]


class NamedDataset(NamedTuple):
    """A data set on the network.

    Attributes
    ----------
    train, test : Part
    sources : tuple of str or Archive
        Where the files are: the URLs of folders, or archives; in the order in which they are tried.
    class_names : tuple of str
        The name of each class.
    read : callable
        Returns the images (N, C, H, W) and the classes (N,) of the files of a part.
    """

    train: Part
    test: Part
    sources: tuple[str | Archive, ...]
    class_names: tuple[str, ...]
    read: Callable[[Sequence[Path]], Arrays]

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file of both parts, by its name."""
        return self.train.checksums | self.test.checksums


def _read_idx_pair(paths: Sequence[Path]) -> Arrays:
    images_path, labels_path = paths
    return read_idx_arrays(images_path, labels_path)


def _read_emnist(paths: Sequence[Path]) -> Arrays:
    """Read a part of EMNIST, whose files have the rows of an image as columns."""
    images, labels = _read_idx_pair(paths)
    return np.ascontiguousarray(images.swapaxes(2, 3)), labels


def _read_emnist_letters(paths: Sequence[Path]) -> Arrays:
    """Read a part of EMNIST's letters, whose labels are 1 to 26."""
    images, labels = _read_emnist(paths)
    return images, labels.astype(np.int64) - 1


def _idx_parts(
    prefixes: tuple[str, str], sizes: tuple[int, int], checksums: Sequence[str]
) -> tuple[Part, Part]:
    """Return the parts of a data set of MNIST's form.

    Parameters
    ----------
    prefixes : pair of str
        Start of the names of the files of training and of test images.
    sizes : pair of int
        Numbers of training and of test images.
    checksums : sequence of str
        SHA-256 of the training images, their labels, the test images and their labels.
    """
    train, test = (
        Part(
            (size, 1, 28, 28),
            {
                f"{prefix}-images-idx3-ubyte.gz": images_checksum,
                f"{prefix}-labels-idx1-ubyte.gz": labels_checksum,
            },
        )
        for prefix, size, images_checksum, labels_checksum in zip(
            prefixes, sizes, checksums[::2], checksums[1::2], strict=True
        )
    )
    return train, test


# The mirror has the files of the archive one by one: of 562 MB, a data set needs 37.
EMNIST_SOURCES = (
    "https://huggingface.co/datasets/Heliosoph/EMNIST/resolve/main/",
    Archive(
        "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
        "gzip",
    ),
)
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

DATASETS = {
    "mnist": NamedDataset(
        *_idx_parts(
            ("train", "t10k"),
            (60_000, 10_000),
            (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        sources=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        class_names=default_class_names(10),
        read=_read_idx_pair,
    ),
    "fashion-mnist": NamedDataset(
        *_idx_parts(
            ("train", "t10k"),
            (60_000, 10_000),
            (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        sources=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",  # that of Keras
        ),
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        read=_read_idx_pair,
    ),
    "kmnist": NamedDataset(
        *_idx_parts(
            ("train", "t10k"),
            (60_000, 10_000),
            (
                "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
            ),
        ),
        sources=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        read=_read_idx_pair,
    ),
    "emnist-letters": NamedDataset(
        *_idx_parts(
            ("emnist-letters-train", "emnist-letters-test"),
            (124_800, 20_800),
            (
                "6288f418a917e007bf5fddb823a2dc7a5c6a35031401b93292a539cb12bd881f",
                "9759af91ea6bccdf07a6040fd085861f2ec88e37f7c3f5760f6feb57106fbe5c",
                "50f0e93d75b99b463e9760b8345866f22587fa2c2fba472730a5ba09c693412d",
                "924955c31fe7fd809b7303b5c0141282955f4b8390c74cdfd5d80435e0f4b4cb",
            ),
        ),
        sources=EMNIST_SOURCES,
        class_names=tuple(string.ascii_uppercase),
        read=_read_emnist_letters,
    ),
    "emnist-balanced": NamedDataset(
        *_idx_parts(
            ("emnist-balanced-train", "emnist-balanced-test"),
            (112_800, 18_800),
            (
                "74295e75e4e9fa2c102147460ee7eb763653d5132d883a84fb88932bfb8d2db4",
                "b46d41e5156a0a8aaaa4d18979fdd1588850fa8571018acffd5d93b325a7d6ed",
                "117fc12b015e37ea98bfb2cbba3f77c3782c056cdbd219b87abfc8661d7135db",
                "a67cac948379b67270b9a4d0a01c8ec661598accf2f2b1964340b7c83cb175cd",
            ),
        ),
        sources=EMNIST_SOURCES,
        # Small letters that look like their capitals are in the class of the capital.
        class_names=tuple(string.digits + string.ascii_uppercase + "abdefghnqrt"),
        read=_read_emnist,
    ),
    "cifar10": NamedDataset(
        train=Part(
            (50_000, 3, 32, 32),
            {
                "data_batch_1.bin": (
                    "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"
                ),
                "data_batch_2.bin": (
                    "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"
                ),
                "data_batch_3.bin": (
                    "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"
                ),
                "data_batch_4.bin": (
                    "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"
                ),
                "data_batch_5.bin": (
                    "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"
                ),
            },
        ),
        test=Part(
            (10_000, 3, 32, 32),
            {"test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
        ),
        sources=tuple(
            Archive(url + "cifar-10-binary.tar.gz", CIFAR10_SHA256, "cifar-10-batches-bin")
            for url in (
                "https://www.cs.toronto.edu/~kriz/",
                "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
            )
        ),
        class_names=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        read=read_cifar_arrays,
    ),
}
