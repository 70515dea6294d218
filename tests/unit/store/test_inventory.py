"""An inventory lists exactly the objects of a machine, reproducibly; hostile ones are refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabricated_artifacts import FILES
from gapforge import __version__
from gapforge.base.errors import UsageError, VerifyError
from gapforge.base.files import sha256_bytes
from gapforge.base.project import Project
from gapforge.cli import main as cli
from gapforge.store import inventory as inventories
from gapforge.store import take_inventory
from gapforge.store.inventory import (
    MAX_OBJECTS,
    MAX_PRESETS,
    MAX_SIZE,
    Inventory,
    read_short_digest,
    short_digest,
)
from gapforge.store.store import Store
from raised_errors import assert_error, values_of
from samples import PRESET, ROOT

HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
INVENTORIES = st.builds(
    Inventory.of,
    st.from_regex(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}", fullmatch=True),
    st.dictionaries(
        st.from_regex(r"[a-z0-9][a-z0-9._-]{0,199}", fullmatch=True), HASHES, max_size=5
    ),
    st.dictionaries(HASHES, st.integers(0, MAX_SIZE // 64), max_size=40),
)
A, B, C = "a" * 64, "b" * 64, "c" * 64
SMALL = Inventory.of("1.2", {"one": A, "two": B}, {A: 0, B: 7, C: 10**12})


def signed(body: str) -> str:
    """A text with the right hash at its end, so that only its body can be what is wrong."""
    return body + f"sha256 {hashlib.sha256(body.encode()).hexdigest()}\n"


def body(*objects: str, head: str = "", count: int | None = None, total: int | None = None) -> str:
    total = sum(int(o.split()[1]) for o in objects) if total is None else total
    return signed(
        f"gapforge-inventory 1\ngapforge 1.2\n{head}"
        f"objects {len(objects) if count is None else count} {total}\n"
        + "".join(f"{o}\n" for o in objects)
    )


# -- the text


def test_inventory_text_format() -> None:
    above = (
        f"gapforge-inventory 1\ngapforge 1.2\npreset one {A}\npreset two {B}\n"
        "objects 3 1000000000007\n"
        f"{A} 0\n{B} 7\n{C} 1000000000000\n"
    )
    assert SMALL.render() == signed(above)
    assert SMALL.sha256 == hashlib.sha256(above.encode()).hexdigest()
    assert body(f"{A} 0") == Inventory.of("1.2", {}, {A: 0}).render(), (
        "the other tests' texts are well formed"
    )


@given(INVENTORIES)
def test_rendered_inventory_parses_to_equal(inventory: Inventory) -> None:
    text = inventory.render()
    again = Inventory.parse(text)
    assert again == inventory and again.render() == text and again.digest == inventory.digest
    assert all(len(line) <= 100 or line.startswith("preset ") for line in text.splitlines())


@given(INVENTORIES, HASHES)
def test_inventory_lookup_by_checksum(inventory: Inventory, other: str) -> None:
    held = dict(inventory)
    assert len(inventory) == len(held) and inventory.total == sum(held.values())
    assert all(
        inventory.size_of(sha256) == size and sha256 in inventory for sha256, size in held.items()
    )
    assert (other in inventory) is (other in held)


@given(INVENTORIES, st.data())
def test_any_changed_character_is_refused(inventory: Inventory, data: st.DataObject) -> None:
    text = inventory.render()
    at = data.draw(st.integers(0, len(text) - 2))
    put = data.draw(st.characters(max_codepoint=127))
    if put != text[at]:
        with pytest.raises(VerifyError):
            Inventory.parse(text[:at] + put + text[at + 1 :])


@given(INVENTORIES, st.data())
def test_any_truncation_is_refused(inventory: Inventory, data: st.DataObject) -> None:
    text = inventory.render()
    at = data.draw(st.integers(0, len(text) - 2))  # all but the last line's end
    with pytest.raises(VerifyError):
        Inventory.parse(text[:at])


@settings(max_examples=300)
@given(st.text(max_size=300))
def test_random_text_is_refused(text: str) -> None:
    for tried in (
        text,
        "gapforge-inventory 1\n" + text,
        "gapforge-inventory 1\ngapforge 1\nobjects 1 1\n" + text,
    ):
        with pytest.raises(VerifyError):
            Inventory.parse(tried)


def test_inventory_ignores_input_order() -> None:
    assert (
        Inventory.of("1.2", {"two": B, "one": A}, {C: 10**12, B: 7, A: 0}).render()
        == SMALL.render()
    )


def test_crlf_line_ends_are_accepted(tmp_path: Path) -> None:
    text = SMALL.render().replace("\n", "\r\n")
    file = tmp_path / "x"
    file.write_bytes(text.encode())
    assert (
        Inventory.parse(text)
        == Inventory.read(file)
        == Inventory.parse(SMALL.render()[:-1])
        == SMALL
    )


UPPER = f"{'A' * 64} 1"
HOSTILE = {
    "empty": "",
    "another file": "PK\x03\x04 something",
    "a byte order mark": "\ufeff" + SMALL.render(),
    "upper case": body(UPPER),
    "not hex": body(f"{'g' * 64} 1"),
    "short hash": body(f"{'a' * 63} 1"),
    "twice": body(f"{A} 1", f"{A} 1"),
    "twice with another size": body(f"{A} 1", f"{A} 2"),
    "out of order": body(f"{B} 1", f"{A} 1"),
    "negative size": body(f"{A} -1", total=0),
    "leading zero": body(f"{A} 01"),
    "plus": body(f"{A} +1"),
    "underscore": body(f"{A} 1_0"),
    "other digits": signed(f"gapforge-inventory 1\ngapforge 1.2\nobjects 1 1\n{A} \u0661\n"),
    "2^63": body(f"{A} {2**63}"),
    "2^64": body(f"{A} {2**64}"),
    "huge number": body(f"{A} {'9' * 5000}", total=1),
    "sizes that overflow together": body(f"{A} {MAX_SIZE}", f"{B} {MAX_SIZE}"),
    "total too large": body(f"{A} 1", total=2),
    "total too small": body(f"{A} 2", total=1),
    "count too large": body(f"{A} 1", count=2),
    "count too small": body(f"{A} 1", f"{B} 1", count=1),
    "a million and one": body(count=MAX_OBJECTS + 1),
    "10^18 objects": body(count=10**18),
    "trailing space": body(f"{A} 1 "),
    "two spaces": body(f"{A}  1"),
    "a blank line": signed(f"gapforge-inventory 1\ngapforge 1.2\n\nobjects 1 1\n{A} 1\n"),
    "presets out of order": body(head=f"preset two {A}\npreset one {A}\n"),
    "a preset twice": body(head=f"preset one {A}\npreset one {A}\n"),
    "a preset that climbs": body(head=f"preset ../etc {A}\n"),
    "a preset with a slash": body(head=f"preset a/b {A}\n"),
    "a preset without a lock": body(head="preset one\n"),
    "a long name": body(head=f"preset {'a' * 201} {A}\n"),
    "an escape sequence as version": signed(
        "gapforge-inventory 1\ngapforge \x1b[2J\nobjects 0 0\n"
    ),
    "too many presets": body(head="".join(f"preset {i:06} {A}\n" for i in range(MAX_PRESETS + 1))),
    "more after the end": SMALL.render() + "\n",
    "two in one": SMALL.render() * 2,
    "one line without end": "a" * 10_000_000,
    "wrong hash": SMALL.render()[:-65] + "0" * 64 + "\n",
    "lone CR": SMALL.render().replace("\n", "\r"),
    "CR CR LF": SMALL.render().replace("\n", "\r\r\n"),
    "NUL": SMALL.render().replace(" ", "\0"),
    "longer than allowed": "a" * 100_000_001,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_inventories_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(VerifyError) as error:
        Inventory.parse(HOSTILE[name], "sent.txt")
    assert_error(error.value, VerifyError, file="sent.txt")
    assert error.value.hint and len(error.value.render()) < 1000
    file = tmp_path / "sent.txt"
    file.write_bytes(HOSTILE[name].encode())
    with pytest.raises(VerifyError):
        Inventory.read(file)


def test_newer_inventory_format_is_refused() -> None:
    with pytest.raises(VerifyError) as error:
        Inventory.parse(SMALL.render().replace("inventory 1\n", "inventory 2\n"))
    (fault,) = error.value.faults
    assert (values_of(fault.problem), values_of(fault.expected)) == ({"format": 2}, {"format": 1})


def test_invalid_inventory_values_are_refused() -> None:
    for tool, presets, objects in (
        ("1 2", {}, {}),
        ("", {}, {}),
        ("1", {"A": A}, {}),
        ("1", {"a": "x"}, {}),
        ("1", {}, {"x": 1}),
        ("1", {}, {A: -1}),
        ("1", {}, {A: MAX_SIZE, B: 1}),
    ):
        with pytest.raises(ValueError, match="cannot hold"):
            Inventory.of(tool, presets, objects)


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file, kind in (
        (tmp_path, VerifyError),
        (tmp_path / "pipe", VerifyError),
        (tmp_path / "missing", UsageError),
    ):
        with pytest.raises(kind) as caught:
            Inventory.read(file)
        assert_error(caught.value, kind, file=str(file))


def test_ten_thousand_objects_fit_into_mail() -> None:
    objects = {sha256_bytes(b"%d" % i): 10**12 + i for i in range(10_000)}
    assert len(Inventory.of("1.2.3", {"one": A}, objects).render()) < 1_000_000


def test_million_objects_need_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with open(file, "w") as out:
        digest = hashlib.sha256()
        for text in ["gapforge-inventory 1\ngapforge 1\n", f"objects 1000000 {10**12 * 10**6}\n"]:
            out.write(text)
            digest.update(text.encode())
        for block in range(1000):
            text = "".join(f"{block * 1000 + i:064x} {10**12}\n" for i in range(1000))
            out.write(text)
            digest.update(text.encode())
        out.write(f"sha256 {digest.hexdigest()}\n")
    code = (
        "import re, sys; from pathlib import Path; "
        "from gapforge.store.inventory import Inventory; f = Path(sys.argv[1]); "
        "i = Inventory.read(f); "
        "assert len(i) == 10**6; assert i.size_of(f'{999999:064x}') == 10**12; "
        "text = Path('/proc/self/status').read_text(); "
        "print(i.digest, re.search(r'VmHWM:\\s+([0-9]+) kB', text)[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.split()[0] == short_digest(digest.hexdigest())
    assert int(done.stdout.split()[1]) < 100_000, "kilobytes"


# -- the short digest


def test_digest_has_eight_groups_of_four() -> None:
    assert short_digest("0" * 64) == "-".join(["0000"] * 8)
    shown = SMALL.digest
    assert [len(group) for group in shown.split("-")] == [4] * 8
    assert set(shown) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")


@given(HASHES)
def test_typed_digest_is_read(sha256: str) -> None:
    shown = short_digest(sha256)
    typed = shown.lower().replace("-", " ").replace("0", "o").replace("1", "l") + "\n"
    assert read_short_digest(shown) == read_short_digest(typed) == shown


@given(HASHES, st.integers(0, 31), st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ"))
def test_one_wrong_character_is_detected(sha256: str, at: int, put: str) -> None:
    plain = short_digest(sha256).replace("-", "")
    if plain[at] != put:
        with pytest.raises(UsageError):
            read_short_digest(plain[:at] + put + plain[at + 1 :])


@given(HASHES, st.integers(0, 30))
def test_swapped_neighbours_are_detected(sha256: str, at: int) -> None:
    plain = short_digest(sha256).replace("-", "")
    if plain[at] != plain[at + 1]:
        with pytest.raises(UsageError):
            read_short_digest(plain[:at] + plain[at + 1] + plain[at] + plain[at + 2 :])


@pytest.mark.parametrize("typed", ["", "0000", "0" * 31, "0" * 33, "U" * 32, "0" * 31 + "é"])
def test_invalid_digest_is_refused(typed: str) -> None:
    with pytest.raises(UsageError):
        read_short_digest(typed)


# -- what is held


@pytest.fixture
def site(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """The small project as a site that got its artifacts by cp: no store."""
    monkeypatch.setenv("GAPFORGE_ROOT", str(project.root))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return project


def held(project: Project) -> dict[str, int]:
    data = [content for _, content in FILES.values()]
    data += [
        (project.artifacts_of(PRESET) / name).read_bytes() for name in ("lock.json", "SHA256SUMS")
    ]
    return {sha256_bytes(content): len(content) for content in data}


def test_inventory_without_store_reads_artifacts(
    site: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inventory"]) == 0
    inventory = Inventory.read(Path("inventory.txt"))
    assert dict(inventory) == held(site) and inventory.tool == __version__
    lock = sha256_bytes(site.lock_file(PRESET).read_bytes())
    assert inventory.presets == ((PRESET, lock),)
    shown = capsys.readouterr().out
    assert inventory.digest in shown and PRESET in shown and "inventory.txt" in shown


def test_store_and_copies_give_same_inventory(site: Project) -> None:
    cli.main(["inventory", "--output", "copies"])
    store = Store(site.store)
    view = site.artifacts_of(PRESET)
    for path in sorted(p for p in view.rglob("*") if p.is_file()):
        store.place(store.add_bytes(path.read_bytes()), path)
    stock = take_inventory.take_inventory(site)
    assert (stock.files, stock.bytes) == (len(held(site)), sum(held(site).values())), (
        "each inode is read once"
    )
    cli.main(["inventory", "--all", "--output", "store", "--jobs", "1"])
    assert Path("copies").read_bytes() == Path("store").read_bytes()


def test_inventory_of_named_presets(site: Project) -> None:
    Store(site.store).add_bytes(b"of another preset")
    (site.artifacts / "other").mkdir()
    (site.artifacts / "other" / "file").write_bytes(b"other")
    assert dict(take_inventory.take_inventory(site, [PRESET]).inventory) == held(site)
    others = {sha256_bytes(b"of another preset"): 17, sha256_bytes(b"other"): 5}
    assert dict(take_inventory.take_inventory(site).inventory) == {**held(site), **others}


def test_damaged_files_are_left_out_of_inventory(
    site: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = next(path for path in FILES if path.startswith("wheels/"))
    file = site.artifacts_of(PRESET) / damaged
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    bad = Store(site.store).path(Store(site.store).add_bytes(b"was right"))
    bad.chmod(0o644)
    bad.write_bytes(b"is wrong!")
    assert cli.main(["inventory", "--json"]) == VerifyError.exit_code
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["ok"] is False and document["error"]["exit_code"] == 5
    assert {fault["where"] for fault in document["faults"]} == {
        f"{PRESET}/{damaged}",
        f".store/sha256/{bad.parent.name}/{bad.name}",
    }
    expected = held(site)
    del expected[sha256_bytes(FILES[damaged][1])]
    assert dict(Inventory.read(Path("inventory.txt"))) == expected


def test_damaged_copy_with_good_object_counts(site: Project) -> None:
    damaged = next(path for path in FILES if path.startswith("wheels/"))
    Store(site.store).add_bytes(FILES[damaged][1])
    (site.artifacts_of(PRESET) / damaged).write_bytes(b"x")
    stock = take_inventory.take_inventory(site)
    assert len(stock.faults) == 1 and sha256_bytes(FILES[damaged][1]) in stock.inventory


def test_special_files_are_reported_not_followed(site: Project) -> None:
    view = site.artifacts_of(PRESET)
    os.mkfifo(view / "pipe")
    (view / "link").symlink_to("/etc/passwd")
    (view / "folder").symlink_to("/etc")
    objects = site.store / "sha256"
    objects.mkdir(parents=True)
    (objects / "README").write_text("x")
    (objects / "ab").mkdir()
    (objects / "ab" / ("c" * 64)).write_text("x")
    stock = take_inventory.take_inventory(site)
    assert {fault.where for fault in stock.faults} == {
        f"{PRESET}/pipe",
        f"{PRESET}/link",
        f"{PRESET}/folder",
        ".store/sha256/README",
        f".store/sha256/ab/{'c' * 64}",
    }
    assert dict(stock.inventory) == held(site)


def test_control_characters_in_names_are_escaped(
    site: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    os.symlink(
        "/etc/\x1b]0;x", os.fsencode(site.artifacts_of(PRESET)) + b"/\xff\x1b[2J\n\xea\xb0\x80"
    )
    assert cli.main(["inventory", "--json"]) == VerifyError.exit_code
    shown = capsys.readouterr()
    assert json.loads(shown.out)["faults"][0]["where"] == f"{PRESET}/\\udcff\\x1b[2J\\n가"
    assert "\x1b" not in shown.out + shown.err


def test_inventory_without_readable_lock_counts_files(site: Project) -> None:
    (site.artifacts_of(PRESET) / "lock.json").write_text("{")
    stock = take_inventory.take_inventory(site)
    assert stock.faults and sha256_bytes(FILES["requirements.txt"][1]) in stock.inventory


def test_file_growing_while_read_is_fault(site: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = take_inventory.hash_files

    def late(root: Path, paths: list[str], *rest: object) -> dict[str, tuple[str, str]]:
        found = real(root, paths, *rest)  # type: ignore[arg-type]
        with open(root / PRESET / "requirements.txt", "ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(take_inventory, "hash_files", late)
    stock = take_inventory.take_inventory(site)
    assert [(f.where, f.problem) for f in stock.faults] == [
        (f"{PRESET}/requirements.txt", "changed while it was read")
    ]


def test_fault_states_found_and_expected(site: Project) -> None:
    objects = site.store / "sha256"
    objects.mkdir(parents=True)
    (objects / "README").write_text("x")
    damaged = next(path for path in FILES if path.startswith("wheels/"))
    (site.artifacts_of(PRESET) / damaged).write_bytes(b"x")
    stock = take_inventory.take_inventory(site)
    foreign, changed = stock.faults
    assert foreign.where == ".store/sha256/README"
    assert changed.where == f"{PRESET}/{damaged}"
    assert sha256_bytes(b"x") in changed.problem
    assert changed.expected == f"sha256 {sha256_bytes(FILES[damaged][1])}"
    assert_error(stock.error(), VerifyError, count=2, where=[foreign.where, changed.where])
    with pytest.raises(VerifyError) as caught:
        take_inventory.take_inventory(site, ["absent"])
    assert_error(
        caught.value, VerifyError, presets="absent", where=[str(site.artifacts / "absent")]
    )


def test_unverified_bytes_are_not_in_inventory(site: Project) -> None:
    partial = Store(site.store).partial(f"{A}.part")
    partial.write_bytes(b"half of something")
    assert sha256_bytes(b"half of something") not in take_inventory.take_inventory(site).inventory


@pytest.mark.parametrize(
    "name", ["../outside", "", ".", "..", ".store", "debian12-cpu-quickstar", "a/b"]
)
def test_invalid_preset_names_are_refused(
    site: Project, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site.store.mkdir()
    assert cli.main(["inventory", name]) == 2
    assert not Path("inventory.txt").exists()
    assert name != "debian12-cpu-quickstar" or f'did you mean "{PRESET}"' in capsys.readouterr().err


def test_output_replaces_only_an_inventory(
    site: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("thesis").write_text("mine")
    Path("link").symlink_to("thesis")
    for output in ("thesis", "link", ".", str(site.artifacts_of(PRESET) / "x")):
        assert cli.main(["inventory", "--output", output]) == 2
    assert Path("thesis").read_text() == "mine" and not (site.artifacts_of(PRESET) / "x").exists()
    assert cli.main(["inventory"]) == cli.main(["inventory"]) == 0
    capsys.readouterr()


def test_missing_artifacts_folder_is_an_error(
    site: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(site.artifacts)
    assert cli.main(["inventory"]) == VerifyError.exit_code
    assert str(site.artifacts) in capsys.readouterr().err


def test_received_inventory_is_shown(site: Project, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["inventory"])
    capsys.readouterr()
    digest = Inventory.read(Path("inventory.txt")).digest
    assert cli.main(["inventory", "--read", "inventory.txt"]) == 0
    assert digest in capsys.readouterr().out
    assert cli.main(["inventory", "--read", "inventory.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == digest
    assert (
        cli.main(
            ["inventory", "--read", "inventory.txt", "--digest", digest.lower().replace("-", " ")]
        )
        == 0
    )
    assert (
        cli.main(["inventory", "--read", "inventory.txt", "--digest", SMALL.digest])
        == VerifyError.exit_code
    )
    assert SMALL.digest in capsys.readouterr().err
    misread = digest[:-1] + ("7" if digest[-1] != "7" else "8")
    assert cli.main(["inventory", "--read", "inventory.txt", "--digest", misread]) == 2
    assert cli.main(["inventory", "--digest", digest]) == 2
    text = Path("inventory.txt").read_text()
    Path("inventory.txt").write_text(text.replace("0", "1", 1))
    assert cli.main(["inventory", "--read", "inventory.txt"]) == VerifyError.exit_code
    assert cli.main(["inventory", "--read", "inventory.txt", "--all"]) == 2
    assert cli.main(["inventory", "--read", "nowhere.txt"]) == 2


def test_inventory_is_reproducible(site: Project) -> None:
    first = take_inventory.take_inventory(site).inventory.render()
    for path in site.artifacts_of(PRESET).rglob("*"):
        os.utime(path, (1, 1))
    moved = Project(site.root, site.artifacts.rename(site.root / "elsewhere"))
    assert take_inventory.take_inventory(moved).inventory.render() == first


@pytest.mark.parametrize(
    ("text", "line", "found", "expected"),
    [
        ("gapforge-inventory 2\n", 1, {"format": 2}, {"format": 1}),
        ("", 1, {}, {}),
        ("gapforge-inventory 1\nx\n", 2, {}, {}),
        ("이름\n", 0, {}, {}),
        (
            "gapforge-inventory 1\ngapforge 0.3.0\nobjects 1000001 1\n",
            3,
            {"count": 1_000_001},
            {"count": 1_000_000},
        ),
    ],
)
def test_parse_names_line_and_values(
    text: str, line: int, found: dict[str, int], expected: dict[str, int]
) -> None:
    with pytest.raises(VerifyError) as caught:
        Inventory.parse(text, "sent.txt")
    (fault,) = caught.value.faults
    where = {"file": "sent.txt", "line": line} if line else {}
    assert values_of(fault.where) == where and fault.where.startswith("sent.txt")
    assert (values_of(fault.problem), values_of(fault.expected)) == (found, expected)


def test_misread_digest_is_refused() -> None:
    good = short_digest("1" * 64)
    wrong = ("1" if good[0] == "0" else "0") + good[1:]
    with pytest.raises(UsageError) as caught:
        read_short_digest(wrong)
    assert_error(caught.value, UsageError, text=wrong)


def test_korean_inventory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", "ko")
    with pytest.raises(VerifyError) as caught:
        Inventory.parse("gapforge-inventory 2\n")
    lines = caught.value.render().splitlines()
    assert len(lines) == 4 and not any(line.isascii() for line in lines)


# -- at the limits


def test_digest_is_the_same_in_every_version() -> None:
    """People compare it with one that another machine printed."""
    assert short_digest("f" * 64) == "-".join([*["ZZZZ"] * 7, "ZZZ0"])
    assert short_digest("0123456789abcdef" * 4) == "04HM-ASW9-NF6Y-Y093-8NKR-KAYD-XW0J-6HBS"
    assert short_digest("8" + "0" * 63) == "-".join(["G000", *["0000"] * 6, "000G"])


def test_limits_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "MAX_OBJECTS", 2)
    monkeypatch.setattr(inventories, "MAX_PRESETS", 2)
    monkeypatch.setattr(inventories, "MAX_SIZE", 100)
    full = Inventory.of("1", {"one": A, "two": B}, {A: 99, B: 1})
    assert Inventory.parse(full.render()) == full
    for presets, objects in (
        ({"one": A, "two": B, "x": C}, {}),
        ({}, {A: 0, B: 0, C: 0}),
        ({}, {A: 100, B: 1}),
    ):
        with pytest.raises(ValueError, match="cannot hold"):
            Inventory.of("1", presets, objects)
    more = "".join(f"preset {name} {A}\n" for name in ("one", "three", "two"))
    for text, at in ((body(head=more), 5), (body(f"{A} 101"), 3)):
        with pytest.raises(VerifyError) as caught:
            Inventory.parse(text)
        (fault,) = caught.value.faults
        assert values_of(fault.where)["line"] == at and values_of(fault.expected)["count"] in (
            2,
            100,
        )
    text = full.render()
    monkeypatch.setattr(inventories, "MAX_BYTES", len(text))
    assert Inventory.parse(text) == full
    monkeypatch.setattr(inventories, "MAX_BYTES", len(text) - 1)
    with pytest.raises(VerifyError):
        Inventory.parse(text)


def test_text_is_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "_BLOCK", 2)
    objects = {f"{number:064x}": number for number in range(5)}
    made = Inventory.of("1", {}, objects)
    rows = [f"{sha256} {size}\n" for sha256, size in objects.items()]
    chunks = list(made.chunks())
    assert chunks[3:-1] == [rows[0] + rows[1], rows[2] + rows[3], rows[4]]
    assert "".join(chunks) == made.render()
    assert chunks[-1] == f"sha256 {made.sha256}\n"
    with pytest.raises(ValueError, match="SHA-256"):
        made.size_of("x")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (body(f"{A} 1", f"{A} 1"), 5),
        (body(f"{A} 1", f"{B} 1", total=1), 5),
        (body(f"{A} 1", total=3), 4),
        (body(f"{A} 1", count=2), 5),
        (body(head=f"preset two {A}\npreset one {A}\n"), 4),
        (SMALL.render() + "x", 10),
        (SMALL.render()[:-2] + "0\n", 9),
        (SMALL.render()[: -len("\n")] + " ", 9),
        (SMALL.render()[:-80], 8),
    ],
)
def test_refused_line_is_named(text: str, line: int, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text(text)
    for read in (lambda: Inventory.parse(text), lambda: Inventory.read(file)):
        with pytest.raises(VerifyError) as caught:
            read()
        (fault,) = caught.value.faults
        assert values_of(fault.where)["line"] == line


@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
def test_long_line_is_not_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: int, fits: bool
) -> None:
    text = SMALL.render().replace("\n", "\r\n")
    longest = max(len(line) for line in text.splitlines())
    monkeypatch.setattr(inventories, "MAX_LINE", longest - extra)
    file = tmp_path / "x"
    file.write_bytes(text.encode())
    for read in (lambda: Inventory.parse(text), lambda: Inventory.read(file)):
        if fits:
            assert read() == SMALL
        else:
            with pytest.raises(VerifyError):
                read()


def test_named_presets_are_read_alone(site: Project) -> None:
    for name in ("other", "No preset"):
        (site.artifacts / name).mkdir()
        (site.artifacts / name / "lock.json").write_text("{}")
        (site.artifacts / name / "lock.json.sig").write_text("sig")
    Store(site.store).add_bytes(b"x")
    (site.artifacts / "file").write_text("x")
    took = take_inventory.take_inventory(site, [PRESET])
    assert [name for name, _lock in took.inventory.presets] == [PRESET]
    took = take_inventory.take_inventory(site)
    assert [name for name, _lock in took.inventory.presets] == [PRESET, "other"]
    assert sha256_bytes(b"sig") not in took.inventory, "a signature is no object"
    document = took.to_json()
    assert document["presets"][1] == {"preset": "other", "lock": sha256_bytes(b"{}")}
    assert (document["read_files"], document["read_bytes"]) == (took.files, took.bytes)
    assert document["objects"] == len(took.inventory) and document["ok"] is False


def test_only_the_own_name_makes_an_object(site: Project) -> None:
    """In its own folder, and with all of its checksum."""
    hidden, data = site.artifacts / ".copy", b"in the wrong folder"
    hidden.mkdir()
    (hidden / "file").write_bytes(b"hidden")
    objects = site.store / "sha256"
    (objects / "zz").mkdir(parents=True)
    (objects / "zz" / sha256_bytes(data)).write_bytes(data)
    (objects / "ab").mkdir()
    (objects / "ab" / "ab notes").write_bytes(b"notes")
    took = take_inventory.take_inventory(site)
    assert dict(took.inventory) == {**held(site), sha256_bytes(b"hidden"): 6}
    assert [fault.where for fault in took.faults] == [
        ".store/sha256/ab/ab notes",
        f".store/sha256/zz/{sha256_bytes(data)}",
    ]
    assert len({(fault.problem, fault.expected) for fault in took.faults}) == 1


def test_linked_lock_says_nothing(site: Project) -> None:
    lock = site.artifacts_of(PRESET) / "lock.json"
    lock.rename(site.root / "elsewhere")
    lock.symlink_to(site.root / "elsewhere")
    (site.artifacts_of(PRESET) / "requirements.txt").write_bytes(b"other")
    took = take_inventory.take_inventory(site, [PRESET])
    assert [fault.where for fault in took.faults] == [f"{PRESET}/lock.json"]
    assert sha256_bytes(b"other") in took.inventory


@pytest.mark.parametrize("data", [b"", b"x"])
def test_file_that_vanishes_while_it_is_read_is_a_fault(
    site: Project, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    file = site.artifacts_of(PRESET) / "new"
    file.write_bytes(data)
    real = take_inventory.hash_files

    def hashed_and_gone(*words: Any) -> object:
        found = real(*words)
        file.unlink()
        return found

    monkeypatch.setattr(take_inventory, "hash_files", hashed_and_gone)
    took = take_inventory.take_inventory(site, [PRESET])
    assert [fault.where for fault in took.faults] == [f"{PRESET}/new"]
    assert sha256_bytes(data) not in took.inventory


def test_vanished_files_are_faults(site: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each for itself: they are not hard links to one file."""
    real = take_inventory.find_files

    def found_and_gone(folder: Path) -> object:
        found = real(folder)
        for name in ("requirements.txt", "debs/Packages"):
            (folder / name).unlink()
        return found

    monkeypatch.setattr(take_inventory, "find_files", found_and_gone)
    took = take_inventory.take_inventory(site, [PRESET])
    assert {fault.where for fault in took.faults} == {
        f"{PRESET}/requirements.txt",
        f"{PRESET}/debs/Packages",
    }
    assert took.files == len(FILES), "with the lock and SHA256SUMS, without these two"
