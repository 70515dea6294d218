"""``gapforge trust``: manage the trusted signers of this machine, and sign locks."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from gapforge.base import output_mode
from gapforge.base.errors import UsageError
from gapforge.base.i18n import N_, _, ngettext
from gapforge.base.path_checks import given_path
from gapforge.base.project import Project
from gapforge.bundle.sign_bundle import sign_lock
from gapforge.cli import environment_defaults
from gapforge.cli.argument_parser import add_json
from gapforge.cli.output import Row, print_json, say, table
from gapforge.model import preset as presets
from gapforge.trust import ssh_signatures, trusted_signers
from gapforge.trust.ssh_signatures import KINDS, PublicKey
from gapforge.trust.trusted_signers import Signer

HELP = N_("manage trusted signers, and sign locks of artifacts that are copied (needs no network)")
EXAMPLES = (
    "./gapforge trust add ~/release.pub --name release",
    "./gapforge trust list",
    "./gapforge trust sign NAME --key ~/.ssh/id_ed25519.pub",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "action",
        choices=("add", "list", "remove", "sign"),
        metavar="ACTION",
        help=_("add KEY, list, remove NAME, or sign PRESET… --key KEY"),
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="KEY|NAME|PRESET",
        help=_(
            "add: a .pub file, a private key that has its .pub beside it, or a public key as text"
        ),
    )
    parser.add_argument(
        "--name", metavar="NAME", help=_("add: the signer's name (default: the key's comment)")
    )
    parser.add_argument("--key", metavar="KEY", help=_("sign: the SSH key to sign with"))
    add_json(parser)


def run(args: argparse.Namespace, project: Project) -> int:
    """Do the action and return 0, also if nothing had to change."""
    for flag, action in (("name", "add"), ("key", "sign")):
        if getattr(args, flag) is not None and args.action != action:
            raise UsageError(
                _("--{flag} is not allowed with trust {action}", flag=flag, action=args.action),
                hint="./gapforge trust --help",
            )
    file = trusted_signers.signers_file(project)
    document: dict[str, Any] = {"ok": True, "file": str(file)}
    if args.action == "list":
        _only(args, 0, "./gapforge trust list")
        # Not by reading the file: load() refuses a list that was lost.
        signers = trusted_signers.load(project).signers
        document["signers"] = [_json(signer) for signer in signers]
        head = (_("signer"), _("fingerprint"), _("kind of key"))
        if not signers:
            lines = [_no_signers()]
        elif output_mode.quiet():
            lines = [signer.name for signer in signers]
        else:
            lines = table(head, [Row((s.name, s.key.fingerprint, s.key.kind)) for s in signers])
    elif args.action == "add":
        key = _key(_only(args, 1, "./gapforge trust add KEY"))
        name = args.name if args.name is not None else _name(key)
        document.update(added=trusted_signers.add(file, key, name), **_json(Signer(name, key)))
        lines = _added(name, key, file, document["added"])
    elif args.action == "remove":
        removed = trusted_signers.remove(file, _only(args, 1, "./gapforge trust remove NAME"))
        remaining = trusted_signers.read(file)
        document.update(
            removed=[_json(signer) for signer in removed],
            signers=[_json(signer) for signer in remaining.signers],
        )
        lines = [_("no longer trusted: {signer}", signer=signer.shown) for signer in removed]
        lines += [] if remaining else [_no_signers()]
    else:
        document["files"] = [str(path) for path in _sign(args, project)]
        lines = [_("signed: {file}", file=path) for path in document["files"]]
    if args.json:
        print_json(document)
    else:
        print("\n".join(lines))
    return 0


def _only(args: argparse.Namespace, count: int, command: str) -> str:
    if len(args.what) != count:
        message = ngettext(
            "trust {action} takes {count} argument, not {given}",
            "trust {action} takes {count} arguments, not {given}",
            count,
            action=args.action,
            given=len(args.what),
        )
        if args.action == "add":
            command = _("{command} (put a public key in quotes)", command=command)
        raise UsageError(message, hint=command)
    return str(args.what[0]) if count else ""


def _key(text: str) -> PublicKey:
    """Return the key of a file, or of the text itself."""
    if (
        text.split(None, 1)[:1] in ([kind] for kind in KINDS)
        or "PRIVATE KEY-----" in text
        or "-cert-v0" in text.split(" ")[0]
    ):
        try:
            return ssh_signatures.parse_public(text)
        except ValueError as error:
            raise UsageError(
                _("invalid public key: {reason}", reason=error),
                hint="./gapforge trust add FILE.pub",
            ) from None
    if not text.isprintable():
        raise UsageError(
            _("the name of a key file contains no control characters"),
            hint="./gapforge trust add FILE.pub",
        )
    return ssh_signatures.read_public(given_path(text))


def _name(key: PublicKey) -> str:
    """Return a name from the key's comment, or from its fingerprint if that has none."""
    name = re.sub(r"[^A-Za-z0-9._@+-]+", "-", key.comment).strip("-.@+_")[:60].strip("-.@+_")
    if trusted_signers.NAME.fullmatch(name):
        return name
    return "key-" + re.sub(r"[^A-Za-z0-9]", "", key.fingerprint[7:])[:8]


def _added(name: str, key: PublicKey, file: Path, new: bool) -> list[str]:
    first = (
        _("{name} is now trusted ({file})", name=name, file=file)
        if new
        else _("{name} was already trusted ({file})", name=name, file=file)
    )
    return [
        first,
        f"  {key.fingerprint}  ({key.kind})",
        _(
            "compare this fingerprint with the signer's by another channel, such as the "
            "phone; if it differs: ./gapforge trust remove {name!q}",
            name=name,
        ),
    ]


def _sign(args: argparse.Namespace, project: Project) -> list[Path]:
    key = environment_defaults.sign_key(args.key)
    if key is None or not args.what:
        raise UsageError(
            _("trust sign needs presets and a key"),
            hint="./gapforge trust sign PRESET --key ~/.ssh/id_ed25519",
        )
    names = [presets.find(project.presets, name).name for name in dict.fromkeys(args.what)]
    chosen = ssh_signatures.signing_key_of(key)
    if chosen.public.needs_touch:
        say(_("touch the security key when it blinks"))
    return sign_lock(project, names, chosen)


def _no_signers() -> str:
    return _(
        "no trusted signers are configured on this machine, so signatures are not verified; "
        "to add one: ./gapforge trust add KEY"
    )


def _json(signer: Signer) -> dict[str, str]:
    return {"name": signer.name, "kind": signer.key.kind, "fingerprint": signer.key.fingerprint}
