"""`.env` is read exactly, reduced to the named keys, and never shown."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapforge.base.errors import SecretError
from gapforge.model import env_file
from gapforge.model import preset as presets
from gapforge.model.env_file import SecretSet, load, parse
from gapforge.model.preset import Secret
from raised_errors import assert_error, values_of
from samples import ROOT

TOKEN, BUILD = (
    Secret("XAIVA_LICENSE_TOKEN", "secret", False),
    Secret("XAIVA_BUILD_TOKEN", "build-arg", False),
)
CANARY = "canary-5f2d9c71"


def values(text: str) -> dict[str, str]:
    found, faults = parse(text.encode())
    assert faults == []
    return found


def faults(data: bytes | str) -> list[tuple[object, str]]:
    found = parse(data if isinstance(data, bytes) else data.encode())[1]
    return [(values_of(fault.where)["number"], fault.problem) for fault in found]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("K=plain", "plain"),
        ("  export   K=plain", "plain"),
        ("K = spaced  ", "spaced"),
        ("K=", ""),
        ("K= # only a comment", ""),
        ("K=a b # comment", "a b"),
        ("K=a#b", "a#b"),
        ("K=a=b==", "a=b=="),
        ("K=$HOME `id` $(id)", "$HOME `id` $(id)"),
        ("K='a # b' # c", "a # b"),
        (r"K='a\n$x'", r"a\n$x"),
        (r'K="a\n\t\"\\\$x"', 'a\n\t"\\$x'),
        ('K="a\n  b\n"', "a\n  b\n"),
        ("K='-----BEGIN\nabc=\n-----END'", "-----BEGIN\nabc=\n-----END"),
        ('K=""', ""),
        ("K=비밀", "비밀"),
        ("K=it's", "it's"),
    ],
)
def test_value_is_read_from_every_form(line: str, value: str) -> None:
    assert values(f"# c\n\n{line}\nOTHER=1\n") == {"K": value, "OTHER": "1"}


def test_windows_line_ends_and_mark() -> None:
    assert parse(b"\xef\xbb\xbfA=1\r\n\r\nB='x\r\ny'\r\n") == ({"A": "1", "B": "x\ny"}, [])


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_fault_has_its_line(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAPFORGE_LANG", language)
    text = 'A=1\nnonsense\n1X=2\nA=3\nB="x" y\nC="\\q"\nA B=1\n=1\nD=x\x07\nE="open\nF=1\n'
    assert [line for line, _problem in faults(text)] == list(range(2, 11))
    assert values_of(faults(text)[-1][1]) == {"quote": '"'}
    assert parse(text.encode())[0]["F"] == "1", "the lines behind an open quote are read"


@pytest.mark.parametrize(
    "line",
    [
        "T=#s3cret",
        "T= #s3cret",
        "export T =\t#s3cret",
        "T=\u201cabc\u201d",
        "T=\u2018abc\u2019",
        "T=\u00ababc\u00bb",
        "T=\uff02abc\uff02",
        "T=abc\u201d",
        "T=\u00a0abc",
        "T=abc\u200b",
        "T=\u2060abc # comment",
        "T='a\0b'",
    ],
)
def test_ambiguous_value_is_a_fault_with_line(line: str) -> None:
    assert [number for number, _problem in faults(f"A=1\n{line}\nB=2\n")] == [2]
    assert values("T='#s3cret'\nU='\u201cabc\u201d'\nV=a\u201cb\n") == {
        "T": "#s3cret",
        "U": "\u201cabc\u201d",
        "V": "a\u201cb",
    }


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("char", ["\0", "\x1b", "\r"])
def test_control_character_is_reported_in_its_line(quote: str, char: str) -> None:
    text = f"A=1\nT={quote}first\nsec{char}ond{quote}\nB=2\n"
    assert 3 in [number for number, _problem in faults(text)]
    assert "T" not in parse(text.encode())[0]


def test_text_that_is_not_utf8_has_its_line() -> None:
    assert [line for line, _problem in faults(b"A=1\nB=\xff\xfe\n")] == [2]


@given(st.text(max_size=60))
def test_no_fault_shows_a_value(text: str) -> None:
    secret = "S3CR3T"
    for line in (
        f"{text}{secret}",
        f'K="{secret}',
        f"K='a'{secret}",
        f'K="\\q{secret}"',
        f"A {secret}=1",
        f"{secret}-x=1",
    ):
        for fault in parse(line.encode())[1]:
            assert secret not in fault.lines()


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), max_size=40))
def test_single_quotes_keep_any_text(text: str) -> None:
    text = text.replace("'", "")
    assert values(f"K='{text}'\nL=1\n") == {"K": text, "L": "1"}


@given(st.binary(max_size=120))
def test_no_bytes_lose_or_show_a_secret(data: bytes) -> None:
    found, refused = parse(f"K='{CANARY}".encode() + data)
    assert refused or found["K"].startswith(CANARY)
    assert not [f for f in refused if CANARY in f"{f.where}{f.problem}{f.expected}"]


def test_only_named_keys_are_kept(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        f"XAIVA_LICENSE_TOKEN={CANARY}\nAWS_SECRET=other\nXAIVA_BUILD_TOKEN=\n"
        "XAIVA_MEDIA_SOURCE=/src\n"
    )
    file.chmod(0o600)
    got = load(file, [TOKEN, BUILD], environ={})
    assert got.values == {"XAIVA_LICENSE_TOKEN": CANARY}
    assert got.settings == {"XAIVA_MEDIA_SOURCE": "/src"}
    assert got.warnings == ()
    assert CANARY not in repr(got) and "other" not in repr(got)


def test_environment_beats_file_unless_empty(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "XAIVA_LICENSE_TOKEN=from-file\nXAIVA_BUILD_TOKEN=from-file\nXAIVA_MEDIA_SOURCE=/file\n"
    )
    environ = {
        "XAIVA_LICENSE_TOKEN": "from-env",
        "XAIVA_BUILD_TOKEN": "",
        "XAIVA_MEDIA_SOURCE": "/env",
    }
    got = load(file, [TOKEN, BUILD], environ=environ)
    assert got.values == {"XAIVA_LICENSE_TOKEN": "from-env", "XAIVA_BUILD_TOKEN": "from-file"}
    assert got.origin == {"XAIVA_LICENSE_TOKEN": "environment", "XAIVA_BUILD_TOKEN": ".env"}
    assert got.settings == {"XAIVA_MEDIA_SOURCE": "/env"}


def test_missing_file_matters_for_required_keys(tmp_path: Path) -> None:
    assert load(tmp_path / ".env", [TOKEN], environ={}).values == {}
    needed = [Secret("A", "secret", True), Secret("B", "build-arg", True), TOKEN]
    with pytest.raises(SecretError) as error:
        load(tmp_path / ".env", needed, environ={})
    assert error.value.exit_code == 14
    assert [fault.where for fault in error.value.faults] == ["A", "B"]
    assert ".env.template" in error.value.hint
    (tmp_path / ".env").write_text("A=\nB=x\n")
    with pytest.raises(SecretError) as error:
        load(tmp_path / ".env", needed, environ={})
    assert [fault.where for fault in error.value.faults] == ["A"]


def test_unusable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(SecretError) as error:
        load(tmp_path / ".env", [TOKEN], environ={})
    assert_error(error.value, SecretError, env_file=tmp_path / ".env")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SecretError) as error:
        load(tmp_path / "pipe", [TOKEN], environ={})
    assert_error(error.value, SecretError, file=tmp_path / "pipe")
    (tmp_path / "bad").write_text(f"oops {CANARY}\nX=1\nX=2\n")
    with pytest.raises(SecretError) as error:
        load(tmp_path / "bad", [TOKEN], environ={})
    assert len(error.value.faults) == 2 and CANARY not in error.value.render()


def test_readable_or_tracked_file_gives_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\n")
    file.chmod(0o644)
    (warning,) = env_file.file_warnings(file)
    assert "0644" in warning
    file.chmod(0o600)
    assert env_file.file_warnings(file) == []
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert env_file.file_warnings(file) == []
    subprocess.run(["git", "-C", str(tmp_path), "add", "-f", ".env"], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))  # as in a hook of another repository
    (warning,) = env_file.file_warnings(file)
    assert values_of(warning) == {"env_file": file, "name": ".env"}


def test_file_warnings_work_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / ".env"
    file.touch(mode=0o600)
    assert env_file.file_warnings(file) == []


def test_redactions_cover_lines_longest_first() -> None:
    values = {
        "XAIVA_LICENSE_TOKEN": "first line\n  second line\n",
        "XAIVA_BUILD_TOKEN": "second line too",
    }
    got = SecretSet(secrets=(TOKEN, BUILD), values=values)
    assert set(got.redactions) >= {"first line", "second line", "second line too"}
    assert list(got.redactions) == sorted(got.redactions, key=lambda text: (-len(text), text))


def test_template_names_keys_of_all_presets() -> None:
    found, wrong = parse((ROOT / ".env.template").read_bytes())
    assert wrong == []
    for name in presets.names(ROOT / "presets"):
        for secret in presets.find(ROOT / "presets", name).application.secrets:
            assert secret.key in found, f"{name}: {secret.key} is not in .env.template"
    assert "XAIVA_MEDIA_SOURCE" in found and not any(found.values())


def test_git_ignores_the_env_file() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    ignored = subprocess.run(["git", "-C", str(ROOT), "check-ignore", "-q", ".env"], check=False)
    assert ignored.returncode == 0


def where_expected(text: str) -> list[tuple[object, dict[str, object], dict[str, object]]]:
    """Return the line, and the values of problem and expectation, of each fault."""
    return [
        (
            values_of(fault.where)["number"],
            dict(values_of(fault.problem)),
            dict(values_of(fault.expected)),
        )
        for fault in parse(text.encode(), "the file")[1]
    ]


def test_fault_names_the_place_that_must_change() -> None:
    text = "\n# c\nA=1\n\nA='x\ny'\nB=2\nA=4\n"
    again, where = {"key": "A"}, {"number": 3}
    assert where_expected(text) == [(5, again, where), (8, again, where)]
    assert parse(text.encode())[0] == {"A": "1", "B": "2"}
    # Text after the closing quote, which may be lines below the key.
    assert where_expected("K='a\nb\nc' x\n") == [(3, {}, {})]
    assert where_expected("K='a\nb\x07\nc'\n")[0][0] == 2
    assert where_expected("A=1\nK='a\n\nb") == [(2, {"quote": "'"}, {}), (4, {}, {})]
    (fault,) = parse(b"oops", "the file")[1]
    assert values_of(fault.where) == {"file": "the file", "number": 1}
    assert faults(b"A=\xff") == [(1, faults(b"A=\xff")[0][1])]
    assert faults(b"A=1\n\n\xff\n\xff")[0][0] == 3


def test_faults_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_file.limits, "FAULTS", 2)
    assert [line for line, _problem in faults("a\nA=1\nb\nc\nd\n")] == [1, 3]


@pytest.mark.parametrize(
    ("tail", "good"),
    [("", True), (" ", True), (" # c", True), ("\t \t# c", True), ("# c", False), (" c #", False)],
)
def test_only_a_comment_follows_a_quoted_value(tail: str, good: bool) -> None:
    text = f"K='a'{tail}\nL=1\n"
    assert [line for line, _problem in faults(text)] == [1] * (not good)
    assert parse(text.encode())[0] == {"K": "a", "L": "1"} if good else {"L": "1"}


@pytest.mark.parametrize(
    "line",
    [
        *("export", "export=1", "export A B=1", "1A=1", "A-B=1", "A.B=1", "A"),
        *("K=\u2028a", "K=a\u2029", "K=\u3000a", "K=\ufeffa", 'K="\\', 'K="\\x"', "K='a\x1f'"),
    ],
)
def test_line_in_no_known_form_is_a_fault(line: str) -> None:
    found, wrong = parse(f"{line}\n".encode())
    assert (found, len(wrong)) == ({}, 1)


def test_tab_is_text() -> None:
    expected = {"A": "a\tb", "B": "\t", "C": "", "_1": "x"}
    assert values("A=a\tb\nB='\t'\nC=\t# x\n_1=x\n") == expected


def test_nul_in_the_environment_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SecretError) as caught:
        load(tmp_path / ".env", [TOKEN], environ={TOKEN.key: "a\0b"})
    assert [fault.where for fault in caught.value.faults] == [TOKEN.key]
    required = Secret("A", "secret", True)
    got = load(tmp_path / ".env", [required], environ={"A": "x"})
    assert (got.values, got.origin, got.secrets) == ({"A": "x"}, {"A": "environment"}, (required,))


def test_settings_come_from_either_place(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("B_SOURCE=file\nD_SOURCE=file\nE_SOURCE=\nS_SOURCE=secret\nOTHER=1\n")
    file.chmod(0o600)
    environ = {"A_SOURCE": "env", "B_SOURCE": "", "C_SOURCE": "", "D_SOURCE": "env", "X": "1"}
    got = load(file, [Secret("S_SOURCE", "secret", False)], environ=environ)
    assert list(got.settings.items()) == [
        ("A_SOURCE", "env"),
        ("B_SOURCE", "file"),
        ("D_SOURCE", "env"),
    ]
    assert got.values == {"S_SOURCE": "secret"}


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o610, 0o601, 0o700, 0o400])
def test_only_the_owner_may_use_the_file(tmp_path: Path, mode: int) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\n")
    file.chmod(mode)
    found = env_file.file_warnings(file)
    assert [dict(values_of(warning)) for warning in found] == [
        {"env_file": file, "mode": mode}
    ] * bool(mode & 0o077)
    assert env_file.file_warnings(tmp_path / "absent") == []


def test_mounted_secrets_are_those_with_a_value(tmp_path: Path) -> None:
    third = Secret("THIRD", "secret", False)
    got = SecretSet(secrets=(TOKEN, BUILD, third), values={TOKEN.key: "t", BUILD.key: "b"})
    with got.files() as files:
        assert {key: file.read_text() for key, file in files.items()} == {TOKEN.key: "t"}
    with got.files(dry=True) as files:
        assert list(files) == [TOKEN.key] and not files[TOKEN.key].exists()


def test_redactions_hold_no_empty_text() -> None:
    got = SecretSet(secrets=(), values={"A": "\n\nb\n  ccc\n", "B": "dd", "C": "aa"})
    assert got.redactions == ("\n\nb\n  ccc\n", "ccc", "aa", "dd", "b")
