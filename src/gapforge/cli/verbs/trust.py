"""`gapforge trust`: who may sign what is imported and built here, and signing locks for those who carry with cp."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _, ngettext
from gapforge.base.project import Project
from gapforge.bundle.sign_bundle import sign_lock
from gapforge.model import preset as presets
from gapforge.trust import ssh_signatures, trusted_signers
from gapforge.trust.ssh_signatures import KINDS, PublicKey
from gapforge.trust.trusted_signers import Signer

HELP = N_(
    "say whose signatures are trusted, and sign locks that are carried by hand (needs no network)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("add", "list", "remove", "sign"),
        metavar="ACTION",
        help=_("what to do: add KEY, list, remove NAME, sign PRESET… --key KEY"),
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="KEY|NAME|PRESET",
        help=_(
            "add: a .pub file, a private key with its .pub beside it, or the line of a public key"
        ),
    )
    parser.add_argument(
        "--name", metavar="NAME", help=_("add: the signer's name (default: the key's comment)")
    )
    parser.add_argument("--key", metavar="KEY", help=_("sign: the SSH key to sign with"))
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Exit code 0 when it was done, or was so already."""
    for flag, action in (("name", "add"), ("key", "sign")):
        if getattr(args, flag) is not None and args.action != action:
            raise UsageError(
                _("--{flag} means nothing with trust {action}", flag=flag, action=args.action),
                hint="./gapforge trust --help",
            )
    file = trusted_signers.place(project)
    document: dict[str, Any] = {"ok": True, "file": str(file)}
    if args.action == "list":
        _only(args, 0, "./gapforge trust list")
        signers = trusted_signers.load(
            project
        ).signers  # not just the file: a list that is gone does not mean that nobody is trusted
        document["signers"] = [_json(signer) for signer in signers]
        lines = [
            f"{signer.name}  {signer.key.fingerprint}  ({signer.key.kind})" for signer in signers
        ]
        lines = lines or [_nobody()]
    elif args.action == "add":
        key = _key(_only(args, 1, "./gapforge trust add KEY"))
        name = args.name if args.name is not None else _name(key)
        document.update(added=trusted_signers.add(file, key, name), **_json(Signer(name, key)))
        lines = _added(name, key, file, document["added"])
    elif args.action == "remove":
        gone = trusted_signers.remove(file, _only(args, 1, "./gapforge trust remove NAME"))
        left = trusted_signers.read(file)
        document.update(
            removed=[_json(signer) for signer in gone],
            signers=[_json(signer) for signer in left.signers],
        )
        lines = [_("trusted no longer: {shown}", shown=signer.shown) for signer in gone]
        lines += [] if left else [_nobody()]
    else:
        document["files"] = [str(path) for path in _sign(args, project)]
        lines = [_("signed: {path}", path=path) for path in document["files"]]
    if args.json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print("\n".join(lines))
    return 0


def _only(args: argparse.Namespace, count: int, command: str) -> str:
    if len(args.what) != count:
        said = ngettext(
            "trust {action} takes {count} argument, not {what}",
            "trust {action} takes {count} arguments, not {what}",
            count,
            action=args.action,
            what=len(args.what),
        )
        quotes = _(" (put the line of a public key in quotes)")
        raise UsageError(said, hint=command + (quotes if args.action == "add" else ""))
    return str(args.what[0]) if count else ""


def _key(text: str) -> PublicKey:
    """The key that a file or the text itself is."""
    if (
        text.split(None, 1)[:1] in ([kind] for kind in KINDS)
        or "PRIVATE KEY-----" in text
        or "-cert-v0" in text.split(" ")[0]
    ):
        try:
            return ssh_signatures.parse_public(text)
        except ValueError as error:
            raise UsageError(
                _("the key that was given {error}", error=error),
                hint="./gapforge trust add FILE.pub",
            ) from None
    if not text.isprintable():
        raise UsageError(
            _("a key's file has no line ends in its name"), hint="./gapforge trust add FILE.pub"
        )
    return ssh_signatures.read_public(
        Path(os.path.expanduser(text))
    )  # as it is where nobody has that name


def _name(key: PublicKey) -> str:
    """A name out of the key's comment, or of its fingerprint where that holds none."""
    name = re.sub(r"[^A-Za-z0-9._@+-]+", "-", key.comment).strip("-.@+_")[:60].strip("-.@+_")
    return (
        name
        if trusted_signers.NAME.fullmatch(name)
        else "key-" + re.sub(r"[^A-Za-z0-9]", "", key.fingerprint[7:])[:8]
    )


def _added(name: str, key: PublicKey, file: Path, new: bool) -> list[str]:
    first = (
        _("{name} is trusted now ({file})", name=name, file=file)
        if new
        else _("{name} was trusted already ({file})", name=name, file=file)
    )
    return [
        first,
        f"  {key.fingerprint}  ({key.kind})",
        _(
            "compare this fingerprint with the signer over another way, such as the "
            "phone; if it differs: ./gapforge trust remove {name}",
            name=name,
        ),
    ]


def _sign(args: argparse.Namespace, project: Project) -> list[Path]:
    key = args.key if args.key is not None else os.environ.get("GAPFORGE_SIGN_KEY") or None
    if key is None or not args.what:
        raise UsageError(
            _("trust sign needs presets and a key"),
            hint="./gapforge trust sign PRESET --key ~/.ssh/id_ed25519",
        )
    names = [presets.find(project.presets, name).name for name in dict.fromkeys(args.what)]
    chosen = ssh_signatures.signing_key_of(key)
    if chosen.public.touched:
        print(_("touch the security key when it blinks"), file=sys.stderr)
    return sign_lock(project, names, chosen)


def _nobody() -> str:
    return _(
        "nobody is trusted, so signatures are not checked; to change that: ./gapforge trust add KEY"
    )


def _json(signer: Signer) -> dict[str, str]:
    return {"name": signer.name, "kind": signer.key.kind, "fingerprint": signer.key.fingerprint}
