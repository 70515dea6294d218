#!/usr/bin/env -S python3 -I -S
"""Behave as a docker client with its daemon. ``fake_docker.Fake`` installs this program.

Images are entries of a JSON file, containers are processes of this machine. ``fake.json`` beside
the program sets its behaviour (see ``Fake`` in fake_docker.py). Every call is appended to
``calls`` in the state folder, with the variables that matter.
"""

import json
import os
import sys
import time
from pathlib import Path

HERE = Path(sys.argv[0]).absolute().parent
CONFIG = json.loads((HERE / "fake.json").read_text())
STATE = Path(CONFIG["state"])
IMAGES = STATE / "images.json"
CONTAINERS = STATE / "containers"


def fail(text, code=1):
    print(text, file=sys.stderr)
    sys.exit(code)


def images():
    return json.loads(IMAGES.read_text()) if IMAGES.exists() else {}


def keep(found):
    IMAGES.write_text(json.dumps(found))


def option(argv, name):
    return [argv[i + 1] for i, word in enumerate(argv) if word == name]


def need_daemon(code=1):
    host = os.environ.get("DOCKER_HOST", "")
    down = CONFIG.get("down", "")
    if down and host not in CONFIG.get("up_hosts", []):
        fail(("docker: " if code == 125 else "") + down, code)


def version():
    client = {"Client": {"Version": CONFIG["client"], "Context": "default"}, "Server": None}
    down = CONFIG.get("down", "")
    if down and os.environ.get("DOCKER_HOST", "") not in CONFIG.get("up_hosts", []):
        print(json.dumps(client))
        fail(down)
    client["Server"] = {
        "Version": CONFIG["server"],
        "Os": CONFIG.get("os", "linux"),
        "Components": [{"Name": CONFIG.get("component", "Engine")}],
    }
    print(json.dumps(client))


def info():
    need_daemon()
    status = (
        [["driver-type", "io.containerd.snapshotter.v1"]]
        if CONFIG.get("store") == "containerd"
        else []
    )
    print(
        json.dumps({"DockerRootDir": "/fake/docker", "Driver": "overlay2", "DriverStatus": status})
    )


def load():
    import hashlib
    import io
    import tarfile  # imported late: most calls are small, and tests make thousands

    need_daemon()
    if CONFIG.get("load_error"):
        sys.stdin.buffer.read(100)
        fail(CONFIG["load_error"])
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())) as tar:
            for member in tar:
                files[member.name] = tar.extractfile(member).read()
    except tarfile.TarError as error:
        fail(f"unexpected EOF: {error}")
    if "manifest.json" not in files:
        fail("open /var/lib/docker/tmp/x/blobs/json: no such file or directory")
    found = images()
    if CONFIG.get("store") == "containerd":
        entry = json.loads(files["index.json"])["manifests"][0]
        name, identity = entry["annotations"]["io.containerd.image.name"], entry["digest"]
    else:
        entry = json.loads(files["manifest.json"])[0]
        missing = [n for n in entry["Layers"] if n not in files]
        if missing:
            fail(f"missing {missing}")
        name, identity = (
            entry["RepoTags"][0],
            "sha256:" + hashlib.sha256(files[entry["Config"]]).hexdigest(),
        )
    found[name] = CONFIG.get("load_as") or identity
    keep(found)
    print(f"Loaded image: {name}")


def build(argv):
    import hashlib

    need_daemon()
    dockerfile = Path(option(argv, "--file")[0]).read_text()
    print("#1 [internal] load build definition from Dockerfile\n#1 DONE 0.0s")
    print("#4 [a 1/2] FROM base\n#4 CACHED")
    for name in option(argv, "--build-arg"):
        if "=" not in name:
            print(f"#5 0.1 {name} is {os.environ.get(name)}")
    for secret in option(argv, "--secret"):
        file = secret.split("src=")[1].rstrip('"')
        print(f"#5 0.2 secret is {Path(file).read_text()}", end="")
    for line in dockerfile.splitlines():
        if "exit 7" in line:
            print(
                f"#6 [bad 1/1] {line}\n#6 0.1 oops\n"
                '#6 ERROR: process "/bin/sh -c x" did not complete: exit code: 7'
            )
            print("#5 CANCELED\n------\n > [bad 1/1]:\n------")
            sys.exit(1)
    if CONFIG.get("build_error"):
        print(CONFIG["build_error"])
        sys.exit(1)
    found = images()
    tag = option(argv, "--tag")[0]
    found[tag] = "sha256:" + hashlib.sha256((tag + dockerfile).encode()).hexdigest()
    keep(found)


def run(argv):
    import subprocess

    need_daemon(125)
    name = option(argv, "--name")[0]
    entry = argv.index("--entrypoint")
    image, command = argv[entry + 2], [argv[entry + 1], *argv[entry + 3 :]]
    if image not in images() and image not in images().values():
        fail(
            f"Unable to find image '{image}' locally\n"
            f"docker: Error response from daemon: No such image: {image}.",
            125,
        )
    env = dict(os.environ)
    for item in option(argv, "--env"):
        key, given, value = item.partition("=")
        env[key] = value if given else os.environ.get(key, "")
    CONTAINERS.mkdir(exist_ok=True)
    (CONTAINERS / name).touch()
    code = subprocess.run(
        command, env=env, stdin=sys.stdin if "--interactive" in argv else subprocess.DEVNULL
    ).returncode
    (CONTAINERS / name).unlink()
    sys.exit(code)


def image(argv):
    need_daemon()
    found = images()
    if argv[0] == "tag":
        if argv[1] not in found and argv[1] not in found.values():
            fail(f"Error response from daemon: No such image: {argv[1]}")
        found[argv[2]] = found.get(argv[1], argv[1])
        keep(found)
    elif argv[-1] not in found and argv[-1] not in found.values():
        fail(f"Error: No such image: {argv[-1]}")
    elif argv[0] == "inspect":
        facts = {"Os": "linux", "Architecture": "amd64", "Config": {}, **CONFIG.get("image", {})}
        print(json.dumps({"Id": found.get(argv[-1], argv[-1]), "Size": 1234, **facts}))
    elif argv[0] == "history":
        print("1000\n234\n0")
    elif argv[0] == "rm":
        del found[argv[-1]]
        keep(found)


def buildx(argv):
    if argv[0] == "build":
        build(argv)
    elif not CONFIG.get("buildx"):
        fail("docker: 'buildx' is not a docker command.")
    else:
        print(f"github.com/docker/buildx v{CONFIG['buildx']} abc")


def remove(argv):
    if not (CONTAINERS / argv[-1]).exists():
        fail(f"Error: No such container: {argv[-1]}")
    (CONTAINERS / argv[-1]).unlink()


VERBS = {
    "--version": lambda _: print(
        CONFIG.get("banner") or f"Docker version {CONFIG['client']}, build abc"
    ),
    "build": build,
    "buildx": buildx,
    "image": image,
    "info": lambda _: info(),
    "load": lambda _: load(),
    "ps": lambda _: print("\n".join(p.name for p in CONTAINERS.glob("*"))),
    "rm": remove,
    "run": run,
    "version": lambda _: version(),
}


def main(argv):
    with open(STATE / "calls", "a") as calls:
        names = ("DOCKER_BUILDKIT", "DOCKER_HOST", "DOCKER_TLS_VERIFY")
        seen = {name: os.environ[name] for name in names if name in os.environ}
        calls.write(json.dumps({"argv": argv, "env": seen}) + "\n")
    time.sleep(CONFIG.get("slow", 0))
    if argv[0] not in VERBS:
        fail(f"the fake does not know {argv}")
    VERBS[argv[0]](argv[1:])


main(sys.argv[1:])
