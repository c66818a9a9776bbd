"""Download MNIST and two data sets of the same form from their public mirrors."""

import sys
from pathlib import Path

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
# The second mirror of Fashion-MNIST is the one that Keras uses. KMNIST has one mirror.
MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    "kmnist": ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
}
# SHA-256 of each of FILES as its authors published it.
CHECKSUMS = {
    "mnist": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "fashion-mnist": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
    "kmnist": (
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    ),
}
TIMEOUT_SECONDS = (5, 15)  # to connect, and between two packets


class DownloadError(OSError):
    """All mirrors failed. The message names each, why, and where to put the files by hand."""


def _root_cause(error: BaseException) -> BaseException:
    """Return the first exception of a chain, such as "Connection refused"."""
    return error if error.__context__ is None else _root_cause(error.__context__)


def cache_directory() -> Path:
    """Return the directory for the downloads of this user; it may not exist."""
    import pooch

    return Path(pooch.os_cache("cnn"))


def download(name: str) -> Path:
    """Download the four files of a data set into the cache, from the first mirror that works.

    A file gets its final name after its checksum was verified. A file that is there with the right
    checksum is not downloaded again.

    Parameters
    ----------
    name : str
        A key of `MIRRORS`.

    Returns
    -------
    Path
        The directory of the files.

    Raises
    ------
    DownloadError
        Every mirror failed, or the cache cannot be written to.
    """
    import pooch  # takes 0.1 s, and is rarely needed

    pooch.get_logger().setLevel("WARNING")  # the progress bar is enough
    folder = cache_directory() / name
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_SECONDS)
    failures = []
    for mirror in MIRRORS[name]:
        try:
            for file, checksum in zip(FILES, CHECKSUMS[name], strict=True):
                pooch.retrieve(
                    mirror + file, f"sha256:{checksum}", file, folder, downloader=downloader
                )
            return folder
        except (OSError, ValueError) as error:  # the errors of requests are OSErrors
            failures.append(f"  {mirror}: {_root_cause(error)}")
    raise DownloadError(
        "\n".join(
            [
                f"cannot download {name} into {folder}:",
                *failures,
                f"Download {', '.join(FILES)} by hand into that directory, or into one that "
                "--data_dir or CNN_DATA_DIR names. mnist-5k needs no network.",
            ]
        )
    )
