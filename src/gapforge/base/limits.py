"""Limits for everything read from files that a person, a medium or a site hands over.

Each is far above what a real file needs and low enough that reading the worst file costs a moment
and a little memory. A reader applies a limit before it parses, so that no length in a file decides
what the program spends.
"""

from __future__ import annotations

# Bytes of a file that is read whole.
PRESET = 1 << 20  # the largest shipped preset has 6 kB
DESCRIPTION = 1 << 20  # component.json, a catalog document, the Dockerfile or a script of ours
LOCK = 8 << 20  # a lock of 500 files has 200 kB
CHECKSUMS = 8 << 20  # SHA256SUMS: one short line for each entry of a lock
PACKAGE_INDEX = 64 << 20  # Packages of one preset: 1 kB for each .deb
ENVIRONMENT = 1 << 20  # a .env file; a key or certificate in it has some kB
IMAGE_DOCUMENT = 16 << 20  # index, manifest or config of an image; registries accept 4 MiB
IGNORE_FILE = 64 << 10  # .gapforgeignore
IGNORE_LINE = 1000  # bytes of one pattern in it
SOURCE_FILE = 64 << 10  # the file of a source archive that states its version
SOURCE_SEARCH = 1 << 30  # unpacked bytes of a source archive that are searched for this file
SUBMODULES = 256 << 10  # .gitmodules
STATE = 64 << 20  # a file of gapforge's own in .gapforge, dist or the store
SYSTEM = 16 << 20  # a file of the kernel or of a program on this machine

# JSON.
JSON_DEPTH = 64  # levels of lists and objects; our formats have up to eight
JSON_VALUES = 1_000_000  # each takes some 100 bytes of memory; a lock of 500 files has 10,000
JSON_DIGITS = 19  # of a whole number: 64 bits

# Text values of a document.
TEXT = 4096  # characters; as much as a path
VERSION = 128  # characters; "2.7.1+cu128.post20250601" has 24
NAME = 128  # characters of the name of a preset, component, source or package
FAULTS = 100  # that one document reports; the rest would hide them

# Paths, as Linux file systems limit them, with room for the folder that they are put in.
PATH_BYTES = 2048  # of 4096
NAME_BYTES = 255
PATH_DEPTH = 64  # folders; an OCI layout has three
SOURCE_DEPTH = 200  # folders in an application's source; npm nests some thirty
