"""A processor that lacks features: a host's QEMU that cannot emulate them, as if it were on older hardware.

What QEMU can emulate stands in one table of its program, feature_word_info: a word for each register of CPUID.
With a bit cleared there, QEMU behaves as on a processor without it, towards libvirt's questions and guests alike.
"""

from collections.abc import Iterable

_EBX, _ECX, _EDX = 3, 1, 2  # QEMU's numbers of the registers
_LEAVES = {  # leaf, whether it has subleaves, which, register
    "1.ecx": (1, 0, 0, _ECX),
    "7.ebx": (7, 1, 0, _EBX),
    "7.ecx": (7, 1, 0, _ECX),
    "80000001.ecx": (0x80000001, 0, 0, _ECX),
}
FEATURES = {
    **{
        name: ("1.ecx", bit)
        for name, bit in {"pni": 0, "ssse3": 9, "fma": 12, "sse4.2": 20, "aes": 25, "avx": 28}.items()
    },
    **{
        name: ("7.ebx", bit) for name, bit in {"bmi1": 3, "avx2": 5, "smep": 7, "bmi2": 8, "erms": 9, "adx": 19}.items()
    },
    **{name: ("7.ecx", bit) for name, bit in {"umip": 2, "pku": 3, "vaes": 9, "la57": 16, "rdpid": 22}.items()},
    **{name: ("80000001.ecx", bit) for name, bit in {"lahf_lm": 0, "svm": 2, "abm": 5, "sse4a": 6}.items()},
}
"""By libvirt's names: register and bit, from Intel's and AMD's manuals."""

_PROGRAM = """\
import os, struct, sys
path = "/usr/bin/qemu-system-x86_64"
data = bytearray(open(path, "rb").read())
for leaf, sub, ecx, register, bit in {bits!r}:
    entry = struct.pack("<IIIi", leaf, sub, ecx, register)
    found = []
    place = data.find(entry)
    while place >= 0:
        word = struct.unpack_from("<Q", data, place + len(entry))[0]
        if word < 1 << 32 and word >> bit & 1:
            found.append((place + len(entry), word))
        place = data.find(entry, place + 1)
    [(place, word)] = found
    struct.pack_into("<Q", data, place, word & ~(1 << bit))
with open(path + ".new", "wb") as file:
    file.write(data)
os.chmod(path + ".new", 0o755)
os.rename(path + ".new", path)
"""


def program(features: Iterable[str]) -> str:
    """The Python program that takes these features from the QEMU of the host that it runs on.

    Raises `KeyError` for one that is not in the table above.
    """
    bits = [(*_LEAVES[leaf], bit) for leaf, bit in (FEATURES[name] for name in features)]
    return _PROGRAM.format(bits=bits)
