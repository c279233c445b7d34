"""Two hosts: network namespaces whose only way to each other is a cable that loses packets, or is cut, on demand."""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
_CLONE_NEWNET = 0x40000000
_MAX_PACKET_BYTES = 65536
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Host:
    """A namespace, its address, and what a program is started under to be in it."""

    name: str
    address: str

    @property
    def under(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]


@dataclass
class Cable:
    """Between the hosts, in both directions. `loss`: the share of packets that never arrive; `is_cut`: all of them."""

    loss: float = 0.0
    is_cut: bool = False
    carried: int = 0
    lost: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(1))

    def takes(self) -> bool:
        """Whether the next packet arrives."""
        arrives = not self.is_cut and self._random.random() >= self.loss
        self.carried += arrives
        self.lost += not arrives
        return arrives


def why_not() -> str:
    """Why there can be no such hosts here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if shutil.which("ip") is None or not Path("/dev/net/tun").exists():
        return "needs iproute2 and /dev/net/tun"
    name = f"pk{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"the kernel refuses network namespaces: {made.stderr.strip()}"
    try:
        os.close(_tun(name))
    except OSError as error:
        return f"the kernel refuses tunnels: {error}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host, Cable]]:
    """Both hosts and the cable between them; all of it is gone afterwards."""
    hosts = [Host(f"pk{os.getpid()}{letter}", f"10.77.0.{number}") for letter, number in (("a", 1), ("b", 2))]
    cable, tuns, ends = Cable(), [], os.pipe()
    try:
        for host in hosts:
            subprocess.run(["ip", "netns", "add", host.name], check=True)
            tuns.append(_tun(host.name))
            for words in (f"addr add {host.address}/24 dev cable", "link set cable mtu 1400 up", "link set lo up"):
                subprocess.run([*host.under, "ip", *words.split()], check=True)
        carrying = threading.Thread(target=_carry, args=(tuns[0], tuns[1], ends[0], cable), name="cable")
        carrying.start()
        try:
            yield hosts[0], hosts[1], cable
        finally:
            os.write(ends[1], b"x")
            carrying.join()
    finally:
        for descriptor in (*tuns, *ends):
            os.close(descriptor)
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True, check=False)


def _carry(one: int, other: int, end: int, cable: Cable) -> None:
    while True:
        ready, _, _ = select.select([one, other, end], [], [])
        if end in ready:
            return
        for come_from in ready:
            packet = os.read(come_from, _MAX_PACKET_BYTES)
            if cable.takes():
                os.write(other if come_from == one else one, packet)


def _tun(namespace: str) -> int:
    """An interface `cable` in that namespace, and the descriptor on which its packets come and go."""
    made: list[int | OSError] = []

    def make() -> None:
        # Why a thread: a namespace is a thread's, and this one ends.
        place = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            if _libc.setns(place, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", b"cable", _TUN_WITHOUT_HEADER))
            made.append(descriptor)
        except OSError as error:
            made.append(error)
        finally:
            os.close(place)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]
