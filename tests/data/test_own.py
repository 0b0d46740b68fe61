import io
import json
import os
import shutil
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mnist_jax.data import arrays, own, pictures
from mnist_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("decoders_once")
SHARES = {"validation_share": 0.2, "test_share": 0.2}


def _png(seed: int, size=(20, 20), colour=False) -> bytes:
    shape = (*size, 3) if colour else size
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _folder(root, classes=("cat", "dog"), count=10):
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{k}_{i}.png").write_bytes(_png(100 * k + i))
    return root


def _prepare(path, tmp_path, **settings):
    return own.prepare(path, tmp_path / "prepared", own.Settings(**{**SHARES, **settings}))


def _write(kind, root, images, labels, idx_bytes):
    root.mkdir()
    if kind == "npz":
        for names in [("x_train", "y_train", "x_test", "y_test")]:
            values = (images["train"], labels["train"], images["test"], labels["test"])
            np.savez(root / "own.npz", **dict(zip(names, values, strict=True)))
        return root / "own.npz"
    for split in ("train", "test"):
        pngs = []
        for image in images[split]:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            pngs.append(buffer.getvalue())
        if kind == "idx":
            name = "t10k" if split == "test" else split
            (root / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(images[split]))
            (root / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[split]))
        elif kind == "parquet":
            column = [{"bytes": png, "path": None} for png in pngs]
            table = pyarrow.table({"image": column, "label": labels[split].astype(np.int64)})
            pq.write_table(table, root / f"{split}-00000-of-00001.parquet")
        elif kind == "csv":
            names = ["label", *(f"pixel{i}" for i in range(784))]
            rows = np.column_stack([labels[split], images[split].reshape(-1, 784)])
            text = "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)])
            (root / f"{split}.csv").write_text(text + "\n")
        else:
            for i, (png, label) in enumerate(zip(pngs, labels[split], strict=True)):
                (root / split / str(label)).mkdir(parents=True, exist_ok=True)
                (root / split / str(label) / f"{i}.png").write_bytes(png)
    return root


def test_every_format_gives_the_same_arrays(tmp_path, real_data, idx_bytes):
    from mnist_jax.data.readers import idx

    listing = idx.read(real_data / "mnist", transposed=False)
    images, labels = {}, {}
    for split, size in (("train", 300), ("test", 100)):
        part = listing.parts[split]
        images[split] = next(part.chunks())[:size]
        labels[split] = np.array(part.labels[:size], np.uint8)
    hashes = {}
    for kind in ("idx", "npz", "csv", "parquet", "folder"):
        path = _write(kind, tmp_path / kind, images, labels, idx_bytes)
        data, _ = own.prepare(path, tmp_path / "prepared", own.Settings())
        hashes[kind] = data.data_hash
        np.testing.assert_array_equal(arrays.read(data.folder, "test").images, images["test"])
        assert (data.channels, data.image_side) == (1, 28)
        said = f"{data.num_train} train, {data.num_validation} validation, 100 test"
        assert f"; 400 pictures; {said} (validation taken from train); " in data.source
    assert len(set(hashes.values())) == 1, hashes


def test_pneumonia_duplicates_are_found_and_dropped(tmp_path, real_data):
    path = real_data / "pneumonia_mnist" / "pneumoniamnist.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    data, found = _prepare(path, tmp_path)
    within = {split: value["count"] for split, value in found["duplicates_within"].items()}
    assert within == {"train": 18, "validation": 0, "test": 3}
    assert found["duplicates_across"]["train-validation"]["count"] == 8
    assert found["leaks"] == 0
    dropped, after = _prepare(path, tmp_path, drop_duplicates=True)
    assert after["dropped"]["train"] == data.num_train - dropped.num_train >= 8
    assert after["duplicates_across"]["train-validation"]["count"] == 0


def test_a_test_picture_in_train_is_a_leak(tmp_path):
    root = tmp_path / "own"
    for split in ("train", "val", "test"):
        _folder(root / split)
        for path in (root / split).rglob("*.png"):
            path.write_bytes(_png(int.from_bytes(f"{split}{path.name}".encode(), "big")))
    (root / "train" / "cat" / "copy.png").write_bytes(
        (root / "test" / "cat" / "0_0.png").read_bytes()
    )
    data, found = _prepare(root, tmp_path)
    assert found["leaks"] == 1
    assert found["duplicates_across"]["train-test"]["named"] == [
        ["train/cat/copy.png", "test/cat/0_0.png"]
    ]
    after, clean = _prepare(root, tmp_path, drop_duplicates=True)
    assert clean["leaks"] == 0 and after.num_train == data.num_train - 1


def test_a_test_picture_in_train_and_validation_is_one_leak(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (32, 20, 20), np.uint8)
    pixels[8] = pixels[16] = pixels[24] = pixels[0]  # in validation once, in test twice
    pixels[25] = pixels[9]  # in validation and in test
    splits = {"train": pixels[:8], "val": pixels[8:16], "test": pixels[16:]}
    images = {f"{split}_images": part for split, part in splits.items()}
    labels = {f"{split}_labels": np.arange(len(part)) % 2 for split, part in splits.items()}
    (tmp_path / "own.npz").write_bytes(_npz(**images, **labels))
    _, found = _prepare(tmp_path / "own.npz", tmp_path)
    assert found["leaks"] == 3
    across = found["duplicates_across"]
    assert (across["train-test"]["count"], across["validation-test"]["count"]) == (2, 3)


def test_hostile_files_are_named_and_never_opened(tmp_path):
    root = _folder(tmp_path / "own")
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "cat" / "out.png").symlink_to("/etc/hostname")
    (root / "cat" / "loop.png").symlink_to("loop.png")
    (root / "cat" / "dev.png").symlink_to("/dev/zero")
    (root / "cat" / "empty.png").touch()
    (root / "cat" / "cut.png").write_bytes(_png(5)[:100])
    (root / "cat" / "line\n\x1b[31m.png").write_bytes(b"no picture")
    with open(os.fsencode(root / "cat") + b"/\xff.png", "wb") as file:
        file.write(_png(77))
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    data, found = _prepare(root, tmp_path)
    assert data.num_train + data.num_validation + data.num_test == 21
    assert found["unreadable"]["count"] == 7
    assert all(name.isprintable() for name, _ in found["unreadable"]["named"])
    assert {name for name, _ in found["unreadable"]["named"]} >= {"cat/pipe.png", "cat/out.png"}


@pytest.mark.parametrize("leads", ["to a folder", "to a folder with a table", "nowhere"])
def test_a_split_that_is_a_link_is_named(tmp_path, leads):
    root, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    _folder(root / "train")
    if leads != "nowhere":
        _folder(elsewhere)
    if leads == "to a folder with a table":
        (elsewhere / "metadata.csv").write_text("file_name,label\ncat/0_0.png,cat\n")
    (root / "Test" if leads == "to a folder" else root / "test").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"has a link for [Tt]est, .*put the folder itself there"):
        _prepare(root, tmp_path)


def test_a_table_follows_a_split_s_link_within_its_folder(tmp_path):
    root = tmp_path / "own"
    _folder(root / "pictures")
    (root / "train").symlink_to("pictures")
    names = sorted(str(path.relative_to(root)) for path in (root / "pictures").rglob("*.png"))
    rows = [f"{n.replace('pictures', 'train')},{n.split('/')[1]}" for n in names]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    data, found = _prepare(root, tmp_path)
    assert data.num_train + data.num_validation + data.num_test == len(names)
    assert found["unreadable"]["count"] == 0


def test_a_table_reads_nothing_through_a_folder_out_of_its_own(tmp_path):
    root, elsewhere = _folder(tmp_path / "own"), _folder(tmp_path / "elsewhere")
    (root / "out").symlink_to(elsewhere)
    (root / "in").symlink_to("cat")
    names = [f"{place}/{k}_{i}.png" for k, place in enumerate(("cat", "dog")) for i in range(9)]
    names += ["out/cat/0_0.png", "out/cat/none.png", "in/0_9.png"]
    rows = [f"{name},{'dog' if 'dog' in name else 'cat'}" for name in names]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    data, found = _prepare(root, tmp_path)
    assert data.num_train + data.num_validation + data.num_test == 19
    assert found["unreadable"]["named"] == [
        ["out/cat/0_0.png", "a link out of the folder"],
        ["out/cat/none.png", "named in the table, and not there"],
    ]


def test_groups_stay_together_and_a_later_start_decodes_nothing(tmp_path, monkeypatch):
    root = _folder(tmp_path / "own")
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    rows = [f"{n},{n.split('/')[0]},person{i % 5}" for i, n in enumerate(names)]
    (root / "metadata.csv").write_text("\n".join(["file_name,label,group", *rows]) + "\n")
    data, _ = _prepare(root, tmp_path)
    person = {row.split(",")[0]: row.split(",")[2] for row in rows}
    places = {}
    for split, found in own.names(data.folder).items():
        for name in found:
            assert places.setdefault(person[name], split) == split
    monkeypatch.setattr(own, "_make", None)
    assert _prepare(root, tmp_path)[0] == data


@pytest.mark.parametrize("name", ["data.json", "report.json", "names.json"])
@pytest.mark.parametrize("is_there", [True, False])
def test_the_remedy_for_a_damaged_file_helps(name, is_there, tmp_path):
    root = _folder(tmp_path / "own")
    file = _prepare(root, tmp_path)[0].folder / name
    file.write_text("{") if is_there else file.unlink()
    with pytest.raises(UserError, match=f"{name} is missing, .*; delete the folder {file.parent}"):
        own.names(_prepare(root, tmp_path)[0].folder)
    shutil.rmtree(file.parent)
    assert own.names(_prepare(root, tmp_path)[0].folder)


def _npz(**made):
    buffer = io.BytesIO()
    np.savez(buffer, **made)
    return buffer.getvalue()


def _parquet(images, labels=(0, 1, 0, 1), kind=None, names=None):
    image = pyarrow.array(images, kind and pyarrow.struct([("bytes", kind)]))
    table = pyarrow.table({"image": image, "label": pyarrow.array(labels, pyarrow.int64())})
    if names:
        info = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _encrypted(archive):
    """The archive, with the flag of encryption in every header."""
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        first, *others = archive.split(mark)
        flagged = [
            one[: flags - 4] + bytes([one[flags - 4] | 1]) + one[flags - 3 :] for one in others
        ]
        archive = mark.join([first, *flagged])
    return archive


def _zip(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


PNGS = [{"bytes": _png(seed)} for seed in range(4)]
PATHS = [{"bytes": None}, *3 * [{"bytes": "/etc/hostname"}]]
X, Y = np.zeros((4, 20, 20), np.uint8), np.array([0, 1, 0, 1])
PIXELS = "label," + ",".join(f"pixel{i}" for i in range(4)) + "\n"
WRONG = {
    "missing": ({}, "is not there"),
    "empty_folder": ({"d/": b""}, "holds no folders of pictures"),
    "no_format": ({"f.bin": b"hello"}, "in no format that is known"),
    "empty_file": ({"f.npz": b""}, "in no format that is known"),
    "one_class": ({"d/a/1.png": _png(1), "d/a/2.png": _png(2)}, "has 1 class"),
    "empty_class": ({"d/a/1.png": _png(1), "d/b/": b""}, "class 'b'.*has no files"),
    "test_alone": ({"d/test/a/1.png": _png(1)}, "holds test and no train"),
    "two_vals": (
        {"d/train/a/1": _png(1), "d/val/a/1": _png(1), "d/valid/a/1": _png(1)},
        "keep one",
    ),
    "nothing_readable": (
        {f"d/{c}/{i}.png": b"x" for c in "ab" for i in range(5)},
        "no readable picture",
    ),
    "too_few": ({"d/a/1.png": _png(1), "d/b/1.png": _png(2)}, "too few|no picture is left"),
    "npz_damaged": ({"f": b"PK\x03\x04 no zip"}, "is damaged"),
    "npz_encrypted": ({"f": _encrypted(_npz(x_train=X, y_train=Y))}, "is encrypted"),
    "npz_no_array": ({"f": _zip("x_train", "y_train")}, "holds no array, and no images"),
    "npz_names": ({"f": _npz(a=X)}, "holds a, and no images"),
    "npz_no_labels": ({"f": _npz(x_train=X, y_train=Y, x_test=X)}, "x_test and no y_test"),
    "npz_float": ({"f": _npz(x_train=X / 2, y_train=Y)}, "float64, not uint8"),
    "npz_shape": ({"f": _npz(x_train=X[0], y_train=Y)}, r"of shape \(20, 20\)"),
    "npz_channels": ({"f": _npz(x_train=np.zeros((4, 9, 9, 2), "u1"), y_train=Y)}, "of shape"),
    "npz_long": ({"f": _npz(x_train=np.zeros((4, 1, 65_536), "u1"), y_train=Y)}, "65,535 a side"),
    "npz_count": ({"f": _npz(x_train=X, y_train=Y[:3])}, "for 4 images"),
    "npz_onehot": ({"f": _npz(x_train=X, y_train=np.eye(4))}, "labels of shape"),
    "npz_float_label": ({"f": _npz(x_train=X, y_train=Y / 2)}, "labels of type float64"),
    "npz_none": ({"f": _npz(x_train=X[:0], y_train=Y[:0])}, "has no train images"),
    "npz_pickle": ({"f": _npz(x_train=np.array([None]), y_train=Y)}, "Python objects"),
    "idx_alone": ({"f": b"\0\0\x08\x03" + bytes(12)}, "name the folder"),
    "idx_no_labels": ({"d/train-images-idx3-ubyte": b"\0\0\x08\x03"}, "no train labels"),
    "idx_damaged": (
        {"d/train-images-idx3-ubyte": b"junk", "d/train-labels-idx1-ubyte": b"junk"},
        "not an IDX file of bytes",
    ),
    "idx_huge": (
        {
            "d/train-images-idx3-ubyte": b"\0\0\x08\x03" + b"\xff" * 12,
            "d/train-labels-idx1-ubyte": b"\0\0\x08\x01" + b"\xff" * 4,
        },
        "declares",
    ),
    "idx_gzip": (
        {"d/train-images-idx3-ubyte.gz": b"no", "d/train-labels-idx1-ubyte.gz": b"no"},
        "is damaged",
    ),
    "parquet_damaged": ({"f": b"PAR1 no"}, "is not Parquet, or damaged"),
    "parquet_paths": ({"f": _parquet(PATHS)}, "images of type struct<bytes: string>"),
    "parquet_nested": (
        {"f": _parquet([{"bytes": None}], [0], pyarrow.struct([("bytes", pyarrow.binary())]))},
        "images of type struct<bytes: struct<bytes: binary>>",
    ),
    "parquet_names_of_one": (
        {"d/a.parquet": _parquet(PNGS, names=["x", "y"]), "d/b.parquet": _parquet(PNGS)},
        "b.parquet has other class names than .*a.parquet",
    ),
    "parquet_names_more": (
        {
            "d/train.parquet": _parquet(PNGS, names=["x", "y"]),
            "d/test.parquet": _parquet(PNGS, (0, 1, 2, 2), names=["x", "y", "z"]),
        },
        "has other class names than",
    ),
    "csv_not_square": ({"f": b"label,pixel0,pixel1\n1,2,3\n"}, "2 pixels a row, not a square"),
    "csv_level": ({"f": (PIXELS + "1,2,3,4,256\n").encode()}, "cannot be read"),
    "csv_text": ({"f": (PIXELS + "1,2,3,4,x\n").encode()}, "cannot be read"),
    "csv_short_row": ({"f": (PIXELS + "1,2,3\n").encode()}, "cannot be read"),
    "csv_empty": ({"f": PIXELS.encode()}, "has no rows|cannot be read"),
    "csv_missing": ({"f": (PIXELS + "1,2,,4,5\n").encode()}, "missing|cannot be read"),
    "csv_no_labels": ({"f": b"pixel0,pixel1\n1,2\n"}, "no labels to train on"),
    "table_no_column": ({"d/metadata.csv": b"a,b\n1,2\n"}, "no file_name in row 2"),
    "table_no_label": ({"d/metadata.csv": b"file_name\nx.png\n"}, "no label"),
    "table_outside": ({"d/metadata.csv": b"file_name,label\n../x.png,a\n"}, "outside the folder"),
    "table_absolute": ({"d/metadata.csv": b"file_name,label\n/x.png,a\n"}, "outside the folder"),
    "table_bytes": ({"d/metadata.csv": b"file_name,label\n\xff,a\n"}, "is not UTF-8"),
    "table_json": ({"d/metadata.jsonl": b"{\n"}, "is not valid JSON lines"),
    "table_list": ({"d/metadata.jsonl": b"[]\n"}, "is not an object"),
    "table_split": ({"d/metadata.csv": b"file_name,label,split\nx,a,dev\n"}, "the split 'dev'"),
    "table_twice": ({"d/x": _png(1), "d/metadata.csv": b"file_name,label\nx,a\nx,b\n"}, "second"),
    "table_absent": ({"d/metadata.csv": b"file_name,label\nx.png,a\n"}, "without any picture"),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_wrong_input_has_its_line_and_leaves_nothing(tmp_path, case):
    made, line = WRONG[case]
    for name, contents in made.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(contents)
    top = next(iter(made), "f").split("/")[0]
    with pytest.raises(UserError, match=line) as raised:
        _prepare(tmp_path / "in" / top, tmp_path)
    assert len(str(raised.value).splitlines()) == 1
    left = tmp_path / "prepared"
    assert not left.exists() or not list(left.rglob("*.npy")) + list(left.glob(".preparing_*"))


@pytest.mark.parametrize(
    "settings", [{"image_side": 15}, {"image_side": 129}, {"channels": 2}, {"fit": "zoom"},
                 {"test_share": 0.0}, {"validation_share": 1.0}, {"transposed": True}]
)  # fmt: skip
def test_wrong_settings(tmp_path, settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        _prepare(_folder(tmp_path / "own"), tmp_path, **settings)


def test_the_table_is_long_enough():
    assert len(WRONG) >= 40


def test_two_sources_of_one_size_and_time_are_two(tmp_path):
    hashes = set()
    for number in (1, 2):
        path = tmp_path / f"{number}.npz"
        labels = np.arange(20) % 2
        path.write_bytes(_npz(x_train=np.full((20, 20, 20), number, np.uint8), y_train=labels))
        os.utime(path, (0, 0))
        hashes.add(_prepare(path, tmp_path)[0].data_hash)
    assert len(hashes) == 2


def test_a_split_without_a_row_is_named(tmp_path):
    rows = [{"bytes": _png(seed), "path": None} for seed in range(20)]
    table = pyarrow.table({"image": rows, "label": np.arange(20) % 2})
    (tmp_path / "own").mkdir()
    for split, part in (("train", table), ("validation", table[:0])):
        pq.write_table(part, tmp_path / "own" / f"{split}-00000-of-00001.parquet")
    with pytest.raises(UserError, match="has no readable picture for validation"):
        _prepare(tmp_path / "own", tmp_path)


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
def test_bytes_of_every_kind_are_read(kind, tmp_path):
    rows, labels = [{"bytes": _png(seed)} for seed in range(20)], list(np.arange(20) % 2)
    made = _parquet(rows, labels, getattr(pyarrow, kind)(), names=["x", "y"])
    (tmp_path / "own.parquet").write_bytes(made)
    data, _ = _prepare(tmp_path / "own.parquet", tmp_path)
    assert data.class_names == ("x", "y") and data.num_train == 12


@pytest.mark.parametrize("drop_duplicates", [False, True])
def test_grey_arrays_become_colour_of_another_side(drop_duplicates, tmp_path):
    images = np.random.default_rng(5).integers(0, 256, (40, 28, 28), np.uint8)
    images[30] = images[0]  # in test and in train
    labels = np.arange(40) % 2
    given = {"x_train": images[:30], "y_train": labels[:30]}
    given |= {"x_test": images[30:], "y_test": labels[30:]}
    np.savez(tmp_path / "own.npz", **given)  # pyright: ignore[reportArgumentType]
    settings = {"image_side": 20, "channels": 3, "drop_duplicates": drop_duplicates}
    own_data, _ = _prepare(tmp_path / "own.npz", tmp_path, **settings)
    for split in arrays.SPLITS:
        rows = [int(name.split()[1]) for name in own.names(own_data.folder)[split]]
        source = images[30:] if split == "test" else images
        assert 0 not in rows or split == "test" or not drop_duplicates
        colour = [np.repeat(source[row][..., None], 3, axis=2) for row in rows]
        expected = [pictures.prepare(one, 20, "pad") for one in colour]
        np.testing.assert_array_equal(arrays.read(own_data.folder, split).images, expected)


def test_pictures_that_differ_in_one_level_of_blue_are_two(tmp_path):
    pixels = np.random.default_rng(6).integers(0, 255, (20, 20, 3), np.uint8)
    bluer = pixels.copy()
    bluer[7, 9, 2] += 1
    root = _folder(tmp_path / "own")
    for name, one in [("cat/a", pixels), ("cat/b", bluer), ("dog/c", pixels)]:
        Image.fromarray(one).save(root / f"{name}.png")
    _, found = _prepare(root, tmp_path)
    inside, across = found["duplicates_within"].values(), found["duplicates_across"].values()
    named = [set(pair) for some in [*inside, *across] for pair in some["named"]]
    assert named == [{"cat/a.png", "dog/c.png"}]
    near = {name for pair in found["near_duplicates"]["named"] for name in pair}
    assert "cat/b.png" in near
