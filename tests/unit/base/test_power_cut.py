"""Nothing that a command reported as done is lost or cut by a power failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles import carry, hashes, receive, sender, site_at
from gapforge.base.files import sha256_file
from gapforge.base.write_files import remove_file, write_bytes, write_text
from gapforge.bundle import partial_objects
from gapforge.store import incomplete_bundles
from gapforge.store.store import Store
from gapforge.trust import ssh_signatures, trusted_signers
from power_cut import power_cut
from signers import make_key, needs_ssh_keygen, pub


def test_written_and_removed_files_survive_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "folder" / "file"
    with power_cut(monkeypatch) as disk:
        write_text(file, "one")
        assert (disk.named, disk.cut, disk.lost) == ([file], [], set())
        write_bytes(file, b"two")
        assert (disk.cut, disk.lost) == ([], set())
        remove_file(file)
        remove_file(file)
    assert (disk.cut, disk.lost) == ([], set()) and not file.exists()


@pytest.mark.parametrize("one_sync", [False, True])
def test_stored_objects_survive_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_sync: bool
) -> None:
    store = Store(tmp_path / "store")
    fresh = {}
    for number in range(3):
        file = store.partial(f"fresh-{number}")
        file.write_bytes(b"x%d" % number)
        fresh[file] = sha256_file(file)
    with power_cut(monkeypatch, one_sync=one_sync) as disk:
        one = store.add_bytes(b"one")
        source = tmp_path / "source"
        source.write_bytes(b"two")
        store.add_copy(source)
        store.add_all(fresh)
        assert len(disk.named) == 5 and disk.cut == []
        assert not [folder for folder in disk.lost if folder.name != "partial"]
        store.view(tmp_path / "view", {"a/x": one, "b/y": one, "last": one}, (), "last")
    assert disk.cut == [] and {folder.name for folder in disk.lost} <= {"partial"}


@pytest.mark.parametrize("one_sync", [False, True])
def test_volumes_and_imports_survive_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_sync: bool
) -> None:
    made = sender(tmp_path, {"sources/large": bytes(range(256)) * 4000})
    site = site_at(tmp_path / "site")
    medium = tmp_path / "medium"
    with power_cut(monkeypatch) as disk:
        packed = carry(made, medium, size=300_000)
    assert len(packed.volumes) > 2, "the large object is split"
    assert disk.cut == [] and medium not in disk.lost
    assert not [path for path, lost in disk.unsynced_at if path.parent == medium and medium in lost]
    assert {file.name for file in medium.iterdir()} <= {path.name for path in disk.named}
    recorded: list[str] = []
    with power_cut(monkeypatch, one_sync=one_sync) as disk:
        write = partial_objects.PartialObjects._write

        def watched(self: partial_objects.PartialObjects, sha256: str) -> None:
            data = self.data(sha256)
            if disk.content_of(data) != sha256_file(data):
                recorded.append(sha256)
            write(self, sha256)

        monkeypatch.setattr(partial_objects.PartialObjects, "_write", watched)
        assert receive(site, medium).complete
    assert hashes(site) == made.objects and len(disk.named) > len(made.objects)
    assert disk.cut == [] and recorded == []
    assert {folder.name for folder in disk.lost} <= {"partial"}
    assert site.artifacts not in disk.lost and site.presets not in disk.lost
    with power_cut(monkeypatch) as disk:
        incomplete_bundles.forget(site.store, packed.plan.bundle)
    assert not [folder for folder in disk.lost if folder.exists()]


@needs_ssh_keygen
def test_removed_signer_stays_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "trust" / "allowed_signers"
    key = ssh_signatures.read_public(pub(make_key(tmp_path, "alice")))
    trusted_signers.add(listed, key, "alice")
    with power_cut(monkeypatch) as disk:
        trusted_signers.remove(listed, "alice")
    assert (disk.named, disk.cut, disk.lost) == ([listed], [], set())
