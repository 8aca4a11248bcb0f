"""The demo's images: real ones, for two architectures, small enough to be written out here.

Each holds one static program that says hello from its architecture: an ELF header, one segment and a dozen
instructions of machine code, so that `docker run` of the merged name works without any network.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from dataclasses import dataclass
from typing import Final

from proxy.memory import MemoryRegistry, add_image
from proxy.oci.content import Descriptor
from proxy.oci.platform import Platform
from proxy.oci.reference import Digest, Repository, Tag

TAG: Final = Tag("1.0")
VIRTUAL: Final = Repository("kimoqi/alpine")

_LOAD_AT: Final = 0x400000  # where a static program is usually mapped
_HEADERS: Final = 64 + 56  # bytes of the ELF header and of one program header


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture and a program for it.

    Attributes:
        elf: Its number in an ELF header.
        code: write(1, message, length); exit(0). The message follows at once.
    """

    platform: Platform
    elf: int
    code: bytes
    message: bytes


def _x86(message: bytes) -> bytes:
    return b"".join(
        (
            b"\xb8\x01\x00\x00\x00",  # mov eax, 1 (write)
            b"\xbf\x01\x00\x00\x00",  # mov edi, 1
            b"\x48\x8d\x35\x10\x00\x00\x00",  # lea rsi, [rip+16], the message
            b"\xba" + struct.pack("<I", len(message)),  # mov edx, length
            b"\x0f\x05",  # syscall
            b"\xb8\x3c\x00\x00\x00",  # mov eax, 60 (exit)
            b"\x31\xff",  # xor edi, edi
            b"\x0f\x05",  # syscall
        )
    )


def _arm64(message: bytes) -> bytes:
    def mov(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register

    return struct.pack(
        "<8I",
        mov(0, 1),  # x0 = 1
        0x10000000 | 7 << 5 | 1,  # adr x1, 28 bytes on: the message
        mov(2, len(message)),  # x2 = length
        mov(8, 64),  # x8 = write
        0xD4000001,  # svc 0
        mov(0, 0),  # x0 = 0
        mov(8, 93),  # x8 = exit
        0xD4000001,  # svc 0
    )


def machines() -> tuple[tuple[Repository, Machine], ...]:
    """Return the demo's two repositories, each with the machine its image is for."""
    x86, arm = b"hello from linux/amd64\n", b"hello from linux/arm64\n"
    return (
        (Repository("kimoqi/alpine-x86"), Machine(Platform("linux", "amd64"), 62, _x86(x86), x86)),
        (Repository("kimoqi/alpine-arm"), Machine(Platform("linux", "arm64", "v8"), 183, _arm64(arm), arm)),
    )


def program(machine: Machine) -> bytes:
    """Return a static ELF executable: header, one program header, code, message."""
    body = machine.code + machine.message
    size = _HEADERS + len(body)
    entry = _LOAD_AT + _HEADERS
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine.elf, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_AT, _LOAD_AT, size, size, 0x10000)
    return header + segment + body


def layer(machine: Machine) -> tuple[bytes, Digest]:
    """Return the image's only layer as gzipped tar, and the digest of the tar. The same bytes every time."""
    data = program(machine)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("hello")
        member.size, member.mode = len(data), 0o755
        archive.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0), Digest.of(plain.getvalue())


def fill(registry: MemoryRegistry) -> list[tuple[Repository, Platform, Descriptor]]:
    """Push both images and return what was pushed: repository, platform, manifest."""
    pushed = []
    for repository, machine in machines():
        packed, diff_id = layer(machine)
        descriptor = add_image(
            registry, repository, TAG, machine.platform, layer=packed, diff_id=diff_id, entrypoint="/hello"
        )
        pushed.append((repository, machine.platform, descriptor))
    return pushed
