"""OCI layouts, `docker save` archives, and base images from packages and registries."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import random
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gapforge.base import process
from gapforge.base.errors import (
    FetchError,
    GapforgeError,
    ResolveError,
    StorageError,
    TargetError,
    ToolError,
)
from gapforge.base.progress import Progress
from gapforge.model import names
from gapforge.model.preset import BaseImage
from gapforge.model.unresolved_item import LOGIN_REQUIRED, NO_ANSWER, Reason
from gapforge.sync import base_image_facts, mmdebstrap_base, oci_layout
from gapforge.sync.base_image_facts import facts, read_files
from gapforge.sync.docker_archive import import_archive
from gapforge.sync.mmdebstrap_base import clean_tar
from gapforge.sync.network import Network, NoAnswerError
from gapforge.sync.registry_images import look_up, split_reference
from raised_errors import assert_error, values_of

pytestmark = pytest.mark.every_python

# In layers: bytes are a file, "-> X" a symbolic link, "=> X" a hard link, None a folder.
Tree = Mapping[str, "bytes | str | None"]
STATUS = b"Package: libc6\nStatus: install ok installed\nVersion: 2.36\nArchitecture: amd64\n\n"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_image_facts, "_seen", {})


def tar_of(tree: Tree) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                continue
            if content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.type = tarfile.SYMTYPE if content.startswith("-> ") else tarfile.LNKTYPE
                member.linkname = content[3:]
            archive.addfile(member)
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed")
PACKERS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}
LOADABLE = ("plain", "gzip")


def make(
    folder: Path,
    trees: Sequence[Tree],
    packing: str = "plain",
    env: Sequence[str] = (),
    architecture: str = "amd64",
    media: str = names.OCI_LAYER,
) -> Path:
    layers, diff_ids = [], []
    for tree in trees:
        raw = tar_of(tree)
        diff_ids.append("sha256:" + hashlib.sha256(raw).hexdigest())
        layers.append(oci_layout.add_blob(folder, PACKERS[packing](raw), media))
    config = {
        "os": "linux",
        "architecture": architecture,
        "config": {"Env": list(env)},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    digest = oci_layout.add_blob(folder, json.dumps(config).encode(), names.OCI_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": names.OCI_MANIFEST,
        "config": digest.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    oci_layout.write_layout(
        folder, oci_layout.add_blob(folder, json.dumps(manifest).encode(), names.OCI_MANIFEST)
    )
    return folder


def files_of(folder: Path) -> base_image_facts.ImageFiles:
    return read_files(oci_layout.read_layout(folder))


@pytest.mark.parametrize("packing", LOADABLE)
def test_layers_of_every_compression(tmp_path: Path, packing: str) -> None:
    folder = make(
        tmp_path,
        [{"etc/os-release": b"ID=ubuntu\nVERSION_ID='22.04'\n"}, {"./var/lib/dpkg/status": STATUS}],
        packing,
    )
    layout = oci_layout.read_layout(folder)
    found = facts(layout, read_files(layout))
    assert (found.os_id, found.os_version, found.cuda, found.cudnn) == ("ubuntu", "22.04", "", "")
    assert files_of(folder).read("/var/lib/dpkg/status") == STATUS


def test_first_bytes_decide_compression(tmp_path: Path) -> None:
    folder = make(tmp_path, [{"etc/os-release": b"ID=x\n"}], media=names.OCI_LAYER + "+gzip")
    assert files_of(folder).text("etc/os-release") == "ID=x\n"


def test_missing_zstd_has_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "image", [{"a": b"x"}])
    layer = oci_layout.read_layout(folder).layers[0]
    data = b"\x28\xb5\x2f\xfd" + b"rest"
    fake = oci_layout.add_blob(folder, data, layer.media_type)
    layout = oci_layout.read_layout(folder)
    broken = oci_layout.Layout(
        folder=folder,
        manifest=layout.manifest,
        config_blob=layout.config_blob,
        layers=(fake,),
        diff_ids=layout.diff_ids,
        config=layout.config,
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as caught:
        read_files(broken)
    assert "zstd" in caught.value.message
    assert "apt-get install zstd" in caught.value.hint


def test_whiteouts_hide_lower_layers(tmp_path: Path) -> None:
    lower = {
        "etc/apt/sources.list": b"old",
        "etc/apt/sources.list.d/a.list": b"a",
        "etc/apt/sources.list.d/b.list": b"b",
        "usr/share/keyrings/k.gpg": b"k",
        "etc/os-release": b"ID=old\n",
    }
    upper = {
        "etc/apt/.wh.sources.list": b"",
        "etc/apt/sources.list.d/.wh..wh..opq": b"",
        "etc/apt/sources.list.d/c.list": b"c",
        "usr/share/.wh.keyrings": b"",
        "usr/share/keyrings/new.gpg": b"n",
        ".wh.nothing": b"",
    }
    files = files_of(make(tmp_path, [lower, upper]))
    assert files.read("etc/apt/sources.list") is None
    assert files.names("etc/apt/sources.list.d") == ["c.list"]
    assert files.names("usr/share/keyrings") == ["new.gpg"]
    assert files.text("etc/os-release") == "ID=old\n"


def test_whiteout_spares_its_own_layer(tmp_path: Path) -> None:
    upper = {"etc/apt/sources.list": b"new", "etc/apt/.wh.sources.list": b""}
    assert (
        files_of(make(tmp_path, [{"etc/apt/sources.list": b"old"}, upper])).read(
            "etc/apt/sources.list"
        )
        == b"new"
    )


def test_file_or_link_replaces_folder(tmp_path: Path) -> None:
    lower = {"etc/apt/sources.list.d/a.list": b"a", "usr/share/keyrings/k.gpg": b"k"}
    upper = {"etc/apt/sources.list.d": "-> /usr/share/keyrings", "usr/share": None}
    files = files_of(make(tmp_path, [lower, upper]))
    assert files.names("etc/apt/sources.list.d") == ["k.gpg"]
    top = {"etc/apt/sources.list.d": None, "etc/apt/sources.list.d/z.list": b"z"}
    files = files_of(make(tmp_path / "2", [lower, upper, top]))
    assert files.names("etc/apt/sources.list.d") == ["z.list"]


def test_hard_link_has_bytes_of_target(tmp_path: Path) -> None:
    lower = {"etc/apt/sources.list": b"one"}
    upper = {
        "etc/apt/sources.list.d/b.list": b"two",
        "etc/apt/sources.list.d/c.list": "=> etc/apt/sources.list.d/b.list",
        "etc/apt/sources.list.d/d.list": "=> etc/apt/sources.list",
    }
    files = files_of(make(tmp_path, [lower, upper]))
    assert (
        files.read("etc/apt/sources.list.d/c.list"),
        files.read("etc/apt/sources.list.d/d.list"),
    ) == (b"two", b"one")


@pytest.mark.parametrize(
    "target", ["../usr/lib/os-release", "/usr/lib/os-release", "../../../../usr/lib/os-release"]
)
def test_links_stay_inside_image(tmp_path: Path, target: str) -> None:
    folder = make(
        tmp_path, [{"usr/lib/os-release": b"ID=inside\n", "etc/os-release": f"-> {target}"}]
    )
    assert files_of(folder).text("etc/os-release") == "ID=inside\n"


def test_link_to_host_file_is_dead(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = make(
        tmp_path / "image",
        [{"etc/apt/sources.list": f"-> {secret}", "etc/apt/x": "-> ../../../../etc/passwd"}],
    )
    files = files_of(folder)
    assert files.read("etc/apt/sources.list") is None
    assert files.read("etc/apt/x") is None
    assert files.read("../../etc/passwd") is None


def test_loop_of_links_fails(tmp_path: Path) -> None:
    folder = make(
        tmp_path,
        [
            {
                "etc/os-release": "-> ../usr/lib/os-release",
                "usr/lib/os-release": "-> /etc/os-release",
            }
        ],
    )
    with pytest.raises(FetchError, match="loop"):
        files_of(folder).read("etc/os-release")


@pytest.mark.parametrize("name", ["../etc/passwd", "etc/../../x", "a/.."])
def test_unsafe_name_in_layer_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(FetchError, match="unsafe name"):
        files_of(make(tmp_path, [{name: b"x"}]))


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
@pytest.mark.parametrize("fault", ["flipped", "short", "long", "missing"])
@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_damaged_blob_is_reported(tmp_path: Path, which: str, fault: str, packing: str) -> None:
    folder = make(tmp_path, [{"etc/os-release": b"ID=x\n" * 400}], packing)
    layout = oci_layout.read_layout(folder)
    blob = {"manifest": layout.manifest, "config": layout.config_blob, "layer": layout.layers[0]}[
        which
    ]
    path = blob.path(folder)
    data = bytearray(path.read_bytes())
    path.unlink()
    if fault == "flipped":
        data[len(data) // 2] ^= 1
    elif fault == "short":
        data = data[:-1]
    elif fault == "long":
        data += b"\0"
    if fault != "missing":
        path.write_bytes(data)
    with pytest.raises(FetchError) as caught:
        read_files(oci_layout.read_layout(folder))
    assert path.name in caught.value.render()
    if fault != "missing":
        assert hashlib.sha256(data).hexdigest() in caught.value.render()


def test_layer_must_match_diff_id(tmp_path: Path) -> None:
    folder = make(tmp_path, [{"a": b"x"}], "gzip")
    layout = oci_layout.read_layout(folder)
    config = json.loads(layout.config_blob.path(folder).read_bytes())
    config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    oci_layout.add_image(folder, json.dumps(config).encode(), list(layout.layers))
    with pytest.raises(FetchError) as caught:
        files_of(folder)
    assert_error(caught.value, FetchError, layer=1, where=[str(layout.layers[0].path(folder))])
    assert caught.value.faults[0].expected == "sha256:" + "0" * 64


def edited(folder: Path, change: Any) -> None:
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda i: i["manifests"][0].update(digest="sha512:" + "0" * 128), "unsupported digest"),
        (
            lambda i: i["manifests"][0].update(digest="sha256:../../../../etc/passwd"),
            "unsupported digest",
        ),
        (lambda i: i["manifests"][0].update(size="12"), "unusable size"),
        (lambda i: i["manifests"].append(dict(i["manifests"][0])), "lists 2 images"),
        (lambda i: i.update(manifests=[]), "lists 0 images"),
        (lambda i: i.pop("manifests"), "manifests"),
    ],
)
def test_unusable_index_is_rejected(tmp_path: Path, change: Any, said: str) -> None:
    folder = make(tmp_path, [{"a": b"x"}])
    edited(folder, change)
    with pytest.raises(FetchError, match=said):
        oci_layout.read_layout(folder)


def test_other_platform_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        oci_layout.read_layout(make(tmp_path, [{"a": b"x"}], architecture="arm64"))
    assert_error(caught.value, TargetError, image=str(tmp_path))
    assert values_of(caught.value.faults[0].problem) == {"platform": "linux/arm64"}


@needs_zstd
def test_layers_that_docker_20_cannot_load_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        oci_layout.read_layout(make(tmp_path, [{"a": b"x"}], "zstd"))
    assert values_of(caught.value.faults[0].problem) == {"names": "zstd"}


def test_cuda_and_cudnn_of_image(tmp_path: Path) -> None:
    env = ["CUDA_VERSION=11.8.0", "NV_CUDNN_VERSION=8.6.0.163"]
    release = {"etc/os-release": b'NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="22.04"\nBROKEN="\n'}
    layout = oci_layout.read_layout(make(tmp_path / "1", [release], env=env))
    assert facts(layout, read_files(layout)) == base_image_facts.Facts(
        "ubuntu", "22.04", "11.8.0", "8.6.0.163"
    )
    status = (
        b"Package: libcudnn8\nStatus: hold ok installed\nVersion: 8.9.6.50-1+cuda11.8\n\n"
        b"Package: libcudnn8-dev\nStatus: install ok installed\nVersion: 1-1\n\n"
        b"Package: libcudnn9-cuda-12\nStatus: deinstall ok config-files\nVersion: 9.0-1\n"
    )
    layout = oci_layout.read_layout(
        make(tmp_path / "2", [release, {"var/lib/dpkg/status": status}], env=env)
    )
    assert facts(layout, read_files(layout)).cudnn == "8.9.6.50"


def test_same_image_same_bytes(tmp_path: Path) -> None:
    a, b = (make(tmp_path / name, [{"x": b"1"}]) for name in "ab")
    assert (a / "index.json").read_bytes() == (b / "index.json").read_bytes()
    assert sorted(p.name for p in a.rglob("*")) == sorted(p.name for p in b.rglob("*"))


# -- docker save archives


def save(
    file: Path,
    images: Sequence[tuple[str, Sequence[Tree]]],
    mode: str = "plain",
    links: bool = False,
    layers: str = "plain",
) -> str:
    """Write what `docker save` writes. Return the config digest of the last image.

    ``mode`` is the compression of the archive, ``layers`` that of each layer.
    """
    members: dict[str, bytes | str | None] = {}
    listed = []
    config = b""
    for tag, trees in images:
        raws = [tar_of(tree) for tree in trees]
        ids = [hashlib.sha256(raw).hexdigest() for raw in raws]
        config = json.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{i}" for i in ids]},
                "container": "kept as it is",
            }
        ).encode()
        names = []
        for number, (plain, layer) in enumerate(zip(raws, ids, strict=True)):
            name, raw = f"{layer}/layer.tar", PACKERS[layers](plain)
            if links and number == 0:
                members["shared/layer.tar"] = raw
                members[name] = "-> ../shared/layer.tar"
            else:
                members[name] = raw
            names.append(name)
        digest = hashlib.sha256(config).hexdigest()
        members[f"{digest}.json"] = config
        listed.append({"Config": f"{digest}.json", "RepoTags": [tag], "Layers": names})
    members["manifest.json"] = json.dumps(listed).encode()
    file.write_bytes(PACKERS[mode](tar_of(members)))
    return "sha256:" + hashlib.sha256(config).hexdigest()


@needs_zstd
@pytest.mark.parametrize("mode", PACKERS)
@pytest.mark.parametrize("layers", PACKERS)
@pytest.mark.parametrize("links", [False, True])
def test_archive_keeps_image_id(tmp_path: Path, mode: str, layers: str, links: bool) -> None:
    """Layers that not every engine can load are stored uncompressed, which changes no image id."""
    file = tmp_path / "image.tar"
    image_id = save(
        file,
        [("cuda:11.8", [{"etc/os-release": b"ID=ubuntu\n"}, {"b": b"2"}])],
        mode,
        links,
        layers,
    )
    out = tmp_path / "out"
    out.mkdir()
    assert import_archive(file, out) == "cuda:11.8"
    layout = oci_layout.read_layout(out)
    assert layout.config_blob.digest == image_id
    assert read_files(layout).text("etc/os-release") == "ID=ubuntu\n"
    assert len(list((out / "blobs/sha256").iterdir())) == 4, (
        "nothing but the image may stay in the layout"
    )
    assert sorted(p.name for p in (out / "blobs").iterdir()) == ["sha256"]


def test_archive_of_two_images_fails(tmp_path: Path) -> None:
    file = tmp_path / "two.tar"
    save(file, [("a:1", [{"a": b"1"}]), ("b:2", [{"b": b"2"}])])
    (tmp_path / "out").mkdir()
    with pytest.raises(FetchError) as caught:
        import_archive(file, tmp_path / "out")
    assert_error(caught.value, FetchError, name="two.tar", count=2, where=[str(file)])
    assert values_of(caught.value.faults[0].problem) == {"images": "a:1, b:2"}
    assert "docker save a:1" in caught.value.hint


@needs_zstd
@pytest.mark.parametrize("mode", PACKERS)
@pytest.mark.parametrize("layers", PACKERS)
def test_flipped_bits_are_damage(tmp_path: Path, mode: str, layers: str) -> None:
    file = tmp_path / "image.tar"
    save(file, [("a:1", [{"a": random.Random(1).randbytes(500)}])], mode, layers=layers)
    good, chance, refused = file.read_bytes(), random.Random(2), 0
    for number in range(25):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data[: chance.randrange(len(data))] if number % 5 == 0 else data)
        out = tmp_path / str(number)
        out.mkdir()
        try:
            import_archive(file, out)
            read_files(oci_layout.read_layout(out))
        except (FetchError, TargetError):
            refused += 1
    assert refused > (3 if mode == "plain" else 10), "only the padding of a tar does not matter"


@pytest.mark.parametrize("broken", ["no-tar", "cut", "empty-tar", "loop"])
def test_unusable_archive_is_rejected(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "image.tar"
    save(file, [("a:1", [{"a": b"1" * 5000}])])
    if broken == "no-tar":
        file.write_bytes(b"<html>not an archive</html>" * 100)
    elif broken == "cut":
        file.write_bytes(file.read_bytes()[:3000])
    elif broken == "empty-tar":
        file.write_bytes(tar_of({}))
    else:
        manifest = json.dumps([{"Config": "x", "RepoTags": None, "Layers": []}]).encode()
        file.write_bytes(tar_of({"manifest.json": manifest, "x": "-> y", "y": "-> x"}))
    (tmp_path / "out").mkdir()
    with pytest.raises(FetchError, match="not a usable"):
        import_archive(file, tmp_path / "out")


# -- images made from packages


def test_clean_tar_drops_files_of_machine(tmp_path: Path) -> None:
    kept: Tree = {
        "./etc/apt/sources.list": b"deb x y z",
        "./var/lib/dpkg/status": STATUS,
        "./var/log/btmp": b"",
        "./var/lib/apt/lists": None,
        "./dev": None,
        "./usr/bin/sh": "-> dash",
        "./usr/share/" + "long/" * 40 + "name": b"long",
        "./etc/hostname.d": b"kept",
    }
    dropped: Tree = {
        "./etc/hostname": b"builder-7",
        "./etc/resolv.conf": b"nameserver 10.0.0.1",
        "./dev/null": b"",
        "./etc/machine-id": b"",
        "./var/lib/apt/lists/mirror_Release": b"x",
        "./var/log/dpkg.log": b"today",
        "./var/cache/apt/pkgcache.bin": b"x",
        "./var/lib/dpkg/status-old": b"x",
        "./etc/shadow-": b"x",
        "./etc/apt/apt.conf.d/99mmdebstrap": b"CAInfo",
        "./var/lib/apt/lists/partial": None,
        "./var/cache/debconf/config.dat-old": b"x",
    }
    mixed = (
        {
            name: tree[name]
            for pair in zip(list(kept), list(dropped), strict=False)
            for name, tree in ((pair[0], kept), (pair[1], dropped))
        }
        | dict(dropped)
        | dict(kept)
    )
    file = tmp_path / "made.tar"
    file.write_bytes(tar_of(mixed))
    out = io.BytesIO()
    digest, size = clean_tar(file, out)
    assert (hashlib.sha256(out.getvalue()).hexdigest(), len(out.getvalue())) == (digest, size)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert {m.name for m in archive} == set(kept)
    again = io.BytesIO()
    file.write_bytes(out.getvalue())
    assert clean_tar(file, again)[0] == digest


def test_clean_tar_keeps_extended_attributes(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("usr/bin/ping")
        member.pax_headers = {"SCHILY.xattr.security.capability": "\x01\x02cap"}
        archive.addfile(member)
    file = tmp_path / "x.tar"
    file.write_bytes(raw.getvalue())
    out = io.BytesIO()
    clean_tar(file, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert (
            archive.getmembers()[0].pax_headers["SCHILY.xattr.security.capability"] == "\x01\x02cap"
        )


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("nvidia/cuda", ("nvidia/cuda", "latest", "")),
        ("localhost:5000/x", ("localhost:5000/x", "latest", "")),
        ("localhost:5000/x:1", ("localhost:5000/x", "1", "")),
        ("x@sha256:ab", ("x", "", "sha256:ab")),
        ("x:1@sha256:ab", ("x", "1", "sha256:ab")),
    ],
)
def test_reference_is_split_into_name_tag_digest(
    reference: str, parts: tuple[str, str, str]
) -> None:
    assert split_reference(reference) == parts


class Refused:
    """A process.stream() whose program prints ``output`` and fails; ``env`` is its environment."""

    def __init__(self, output: str) -> None:
        self.output, self.env = output, dict[str, Any]()

    def __call__(self, argv: Sequence[str], on_line: Any, *, env: Mapping[str, Any]) -> int:
        self.env = dict(env)
        on_line(self.output)
        return 1


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_mmdebstrap_runs_in_english(
    tmp_path: Path, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", lang)
    monkeypatch.setenv("LANGUAGE", "ko:en")  # even in C.UTF-8 gettext would follow it
    stream = Refused("E: Unable to locate package nosuch")
    monkeypatch.setattr(process, "stream", stream)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(ResolveError) as caught:
        mmdebstrap_base.make(
            BaseImage(suite="bookworm"), 0, tmp_path, Network(), Progress("test", quiet=True)
        )
    assert (stream.env["LC_ALL"], stream.env["LANGUAGE"]) == ("C.UTF-8", None)
    label = BaseImage(suite="bookworm").label
    assert_error(caught.value, ResolveError, label=label, detail=stream.output)


# -- out of a registry


SKOPEO = 'time="2026-01-01T00:00:00Z" level=fatal msg="Error parsing image name: {}"'


@pytest.fixture
def skopeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where PATH has skopeo; the test writes the program there."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin" / "skopeo"


def failure_of(output: str, skopeo: Path, kind: type[GapforgeError] = FetchError) -> GapforgeError:
    skopeo.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{output}\nEND\nexit 1\n")
    skopeo.chmod(0o755)
    with pytest.raises(kind) as caught:
        look_up(BaseImage(image="registry.example/denied/x:404"), Network())
    return caught.value


IN_404 = "reading manifest 404 in registry.example:4040/denied/unauthorized: "
PING = "pinging container registry registry.example:4040: "


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (IN_404 + "unauthorized", LOGIN_REQUIRED),
        (IN_404 + "denied", LOGIN_REQUIRED),
        (IN_404 + "requested access to the resource is denied", LOGIN_REQUIRED),
        (IN_404 + "StatusCode: 403, ", LOGIN_REQUIRED),
        (
            "unable to retrieve auth token: invalid username/password: unauthorized: no",
            LOGIN_REQUIRED,
        ),
        (PING + "invalid status code from registry 403 (Forbidden)", LOGIN_REQUIRED),
        (IN_404 + "manifest unknown", ""),
        (IN_404 + "name unknown: repository name not known to registry", ""),
        (IN_404 + "StatusCode: 404, ", ""),
        (PING + "invalid status code from registry 404 (Not Found)", NO_ANSWER),
        (IN_404 + "StatusCode: 500, 404 denied", NO_ANSWER),
        (IN_404 + "received unexpected HTTP status: 503 Service Unavailable", NO_ANSWER),
        (PING + "dial tcp 10.0.0.1:404: connect: connection refused", NO_ANSWER),
        (PING + "dial tcp: lookup registry.example: host not found", NO_ANSWER),
        (f"reading manifest sha256:{'404' * 21}0 in x: net/http: TLS timeout", NO_ANSWER),
    ],
)
def test_cause_of_a_registry_error_is_no_part_of_a_name(
    skopeo: Path, cause: str, code: str
) -> None:
    """The causes are those of skopeo 1.9 for a loopback registry with these answers."""
    error = failure_of(SKOPEO.format(cause), skopeo)
    assert isinstance(error, FetchError)
    assert (error.reason.code if isinstance(error, NoAnswerError) else "") == code


def test_manifest_that_the_index_does_not_name_is_refused(skopeo: Path, tmp_path: Path) -> None:
    manifest = b'{"schemaVersion": 2}'
    named = "sha256:" + hashlib.sha256(manifest).hexdigest()
    entry = {"digest": named, "platform": {"os": "linux", "architecture": "amd64"}}
    (tmp_path / "index").write_text(json.dumps({"manifests": [entry]}))
    (tmp_path / "other").write_bytes(manifest + b" ")
    skopeo.write_text(
        f'#!/bin/sh\nfor last; do :; done\ncase "$last" in\n'
        f"*@{named}) cat '{tmp_path}/other';;\n*) cat '{tmp_path}/index';;\nesac\n"
    )
    skopeo.chmod(0o755)
    with pytest.raises(FetchError) as caught:
        look_up(BaseImage(image="registry.example/x:1"), Network())
    found = "sha256:" + hashlib.sha256(manifest + b" ").hexdigest()
    assert_error(caught.value, FetchError, where=["registry.example/x:1"])
    assert caught.value.faults[0].expected == named
    assert values_of(caught.value.faults[0].problem) == {"found": found}


def test_index_that_the_preset_does_not_pin_is_refused(skopeo: Path) -> None:
    skopeo.write_text("#!/bin/sh\necho '{\"manifests\": []}'\n")
    skopeo.chmod(0o755)
    pinned = "sha256:" + "1" * 64
    with pytest.raises(FetchError) as caught:
        look_up(BaseImage(image=f"registry.example/x:1@{pinned}"), Network())
    assert [fault.expected for fault in caught.value.faults] == [pinned]


def test_local_file_that_skopeo_cannot_read_is_no_refusal(skopeo: Path) -> None:
    cause = (
        "getting username and password: 1 error occurred:\\n\\t* reading JSON file "
        '\\"/home/a b/auth.json\\": open /home/a b/auth.json: permission denied\\n\\n'
    )
    error = failure_of(SKOPEO.format(cause), skopeo, StorageError)
    assert [(f.where, f.problem) for f in error.faults] == [
        ("/home/a b/auth.json", "permission denied")
    ]
    assert "'/home/a b/auth.json'" in error.hint


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_skopeo_errors_decide_in_every_language(
    skopeo: Path, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", lang)
    login = failure_of(SKOPEO.format("unauthorized: authentication required"), skopeo)
    assert isinstance(login, NoAnswerError)
    assert "skopeo login registry.example" in login.hint
    assert login.reason == Reason(code=LOGIN_REQUIRED, server="registry:registry.example")
    assert not isinstance(failure_of(SKOPEO.format("manifest unknown"), skopeo), NoAnswerError)
    for silent in (failure_of(SKOPEO.format("i/o timeout"), skopeo), failure_of("", skopeo)):
        assert isinstance(silent, NoAnswerError)
        assert silent.reason == Reason(code=NO_ANSWER, server="registry:registry.example")
    skopeo.chmod(0o644)
    monkeypatch.setenv("PATH", str(skopeo.parent))
    with pytest.raises(NoAnswerError) as caught:
        look_up(BaseImage(image="registry.example/x:1"), Network())
    # skopeo cannot be started, so a login would not help.
    assert caught.value.reason.code == NO_ANSWER
