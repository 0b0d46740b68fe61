"""What is published about each data set: facts, no code that acts on them."""

from collections.abc import Mapping
from typing import NamedTuple

VERSION = "1.0.0"  # of what is made of them; a change of split or resampling raises it
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


class Published(NamedTuple):
    """A data set as its authors describe it, and how it is divided here."""

    title: str
    source: str
    license: str
    citation: str
    class_names: tuple[str, ...]
    num_train: int  # as published; the validation slice is taken from these
    num_validation: int
    num_test: int
    raw_name: str | None  # in tensorflow-datasets and below --manual-dir; None: scikit-learn has it
    sha256: Mapping[str, str] | None = None  # of the raw contents; None: not published
    hub_id: str | None = None  # on the Hugging Face Hub; None: it is not there
    # What a model that knows only this data set cannot do.
    limitations: str = "Pictures of another kind, or prepared in another way, are another task."


_DIGIT_NAMES = tuple("0123456789")

PUBLISHED: dict[str, Published] = {
    "digits_v1": Published(
        title="Optical Recognition of Handwritten Digits, the 1,797 of scikit-learn, at 28x28",
        source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        license="CC BY 4.0",
        citation="E. Alpaydin and C. Kaynak. Optical Recognition of Handwritten Digits. "
        "UCI Machine Learning Repository, 1998. doi:10.24432/C50P49",
        class_names=_DIGIT_NAMES,
        num_train=1_437,
        num_validation=180,
        num_test=360,
        raw_name=None,
        limitations="The digits were scanned at 8 x 8 pixels and are enlarged, smoother than a "
        "real 28 x 28 scan: expect less on other pictures, MNIST's among them. The same people "
        "wrote the train and the test digits, and the test split is small: trust the intervals, "
        "not the last decimals.",
    ),
    "mnist_v1": Published(
        title="MNIST handwritten digits",
        source="http://yann.lecun.com/exdb/mnist/",
        license="CC BY-SA 3.0",
        citation="Y. LeCun, L. Bottou, Y. Bengio and P. Haffner. Gradient-based learning applied "
        "to document recognition. Proceedings of the IEEE, 86(11):2278-2324, 1998",
        class_names=_DIGIT_NAMES,
        num_train=60_000,
        num_validation=5_000,
        num_test=10_000,
        raw_name="mnist",
        hub_id="ylecun/mnist",
        limitations="The digits fill 20 x 20 pixels, with their centre of mass in the middle. "
        "Digits prepared in another way, drawn with thin strokes or written as in another country "
        "(1, 7) are recognised less often. Decades of research have been tuned on this test split.",
        sha256={
            TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion_mnist_v1": Published(
        title="Fashion-MNIST, images of Zalando's articles",
        source="https://github.com/zalandoresearch/fashion-mnist",
        license="MIT",
        citation="H. Xiao, K. Rasul and R. Vollgraf. Fashion-MNIST: a Novel Image Dataset for "
        "Benchmarking Machine Learning Algorithms. arXiv:1708.07747, 2017",
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        num_train=60_000,
        num_validation=5_000,
        num_test=10_000,
        raw_name="fashion_mnist",
        hub_id="zalando-datasets/fashion_mnist",
        limitations="The pictures are cut-out, centred product photographs of one shop; people who "
        "wear the clothes are another task. Shirts, T-shirts, pullovers and coats look alike at "
        "28 x 28 pixels, and some labels are doubtful: see the confusions.",
        sha256={
            TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
    "kmnist_v1": Published(
        title="Kuzushiji-MNIST, handwritten Hiragana",
        source="http://codh.rois.ac.jp/kmnist/index.html.en",
        license="CC BY-SA 4.0",
        citation="T. Clanuwat, M. Bober-Irizar, A. Kitamoto, A. Lamb, K. Yamamoto and D. Ha. "
        "Deep Learning for Classical Japanese Literature. arXiv:1812.01718, 2018",
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        num_train=60_000,
        num_validation=5_000,
        num_test=10_000,
        raw_name="kmnist",
        limitations="A class holds several historical shapes of one character; modern print and "
        "handwriting are another task.",
    ),
}
