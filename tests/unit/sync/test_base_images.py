"""Base images: comparison of their CUDA and cuDNN with the preset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import samples
from apt_repositories import STATUS, make_base
from gapforge.base.errors import CompatibilityError, ResolveError
from gapforge.base.progress import Progress
from gapforge.base.project import Project
from gapforge.model.lock import LockedImage
from gapforge.model.preset import BaseImage
from gapforge.sync import base_images, mmdebstrap_base
from gapforge.sync.base_images import check_base
from gapforge.sync.network import Network


@pytest.mark.parametrize(
    ("cuda", "cudnn", "has_cuda", "has_cudnn", "wrong"),
    [
        ("11.8", "8.9", "11.8.0", "8.9.6.50", []),
        ("11.8", "8", "11.8.0", "8.9.6.50", []),
        ("11.8", "8.6", "11.8.0", "8.9.6.50", ["cuDNN"]),
        ("12.1", "8.9", "12.10.0", "8.9.0", ["CUDA"]),
        ("12.1", "8.9", "11.8.0", "9.1.0", ["CUDA", "cuDNN"]),
        ("12.4", None, "12.4.1", "9.1.0", []),
        (None, None, "12.4.1", "9.1.0", []),
    ],
)
@pytest.mark.parametrize("role", ["builder", "runtime"])
def test_check_base_compares_cuda_and_cudnn(
    cuda: str | None, cudnn: str | None, has_cuda: str, has_cudnn: str, wrong: list[str], role: str
) -> None:
    preset = replace(samples.preset(), cuda=cuda or "", cudnn=cudnn or "")
    image = LockedImage(
        reference="nvidia/cuda:x@sha256:1",
        manifest_digest="",
        config_digest="",
        os_id="ubuntu",
        os_version="22.04",
        cuda=has_cuda,
        cudnn=has_cudnn,
    )
    if not wrong:
        assert check_base(preset, role, image) == []
        return
    with pytest.raises(CompatibilityError) as caught:
        check_base(preset, role, image)
    assert [fault.expected.split()[0] for fault in caught.value.faults] == wrong
    assert (
        f"base.{role}" in caught.value.hint and has_cudnn in caught.value.render()
    ) or wrong == ["CUDA"]


def test_included_packages_must_be_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmdebstrap hands the names to APT, which takes some as patterns."""

    def make(_base: BaseImage, _epoch: int, destination: Path, *_rest: object) -> None:
        make_base(destination, {}, STATUS + "\nPackage: vim\nStatus: install ok installed\n")

    monkeypatch.setattr(mmdebstrap_base, "make", make)
    project, quiet = Project(tmp_path, tmp_path), Progress("test", quiet=True)

    def fetch(*include: str) -> None:
        base = BaseImage(suite="bookworm", variant="minbase", include=include)
        folder = tmp_path / "-".join(include)
        base_images.fetch(base, project, 1, folder, Network(), quiet)

    fetch("vim", "base-files")
    with pytest.raises(ResolveError) as caught:
        fetch("vim", "python3.1")
    assert [fault.where for fault in caught.value.faults] == ["python3.1"]


def test_check_base_warns_about_unknown_cuda() -> None:
    preset = replace(samples.preset(), cuda="11.8", cudnn="8.9")
    image = LockedImage(
        reference="plain:1",
        manifest_digest="",
        config_digest="",
        os_id="ubuntu",
        os_version="22.04",
    )
    assert len(check_base(preset, "builder", image)) == 2
    assert check_base(preset, "runtime", image) == []
