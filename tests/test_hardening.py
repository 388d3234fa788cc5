"""The built files are hardened: what an attacker could use is not left to chance."""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import hotloop._core

if sys.platform != "linux":
    pytest.skip("about files of the format ELF", allow_module_level=True)
pytest.importorskip("elftools")

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

CORE = pathlib.Path(hotloop._core.__file__)
# Where a wheel has its own libuv.
BUNDLED = sorted(CORE.parent.parent.glob("hotloop.libs/*.so*"))


def undefined(elf: Any) -> set[str]:
    """The names of the functions that the file takes from others."""
    table = elf.get_section_by_name(".dynsym")
    assert isinstance(table, SymbolTableSection)
    return {
        symbol.name
        for symbol in table.iter_symbols()
        if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name
    }


def flags_of(elf: Any) -> Iterator[str]:
    """What the dynamic section asks of the loader."""
    section = elf.get_section_by_name(".dynamic")
    assert isinstance(section, DynamicSection)
    # DF_BIND_NOW and DF_1_NOW; the first needs no value.
    now = {"DT_BIND_NOW": 1, "DT_FLAGS": 0x8, "DT_FLAGS_1": 0x1}
    for tag in section.iter_tags():
        name = tag.entry.d_tag
        value = 1 if name == "DT_BIND_NOW" else tag.entry.d_val
        if now.get(name, 0) & value:
            yield "now"
        elif name == "DT_TEXTREL":
            yield "textrel"


def is_development_build() -> bool:
    return b"__assert_fail" in CORE.read_bytes()


@pytest.fixture(params=[CORE, *BUNDLED], ids=lambda path: path.name.split(".")[0])
def elf(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == CORE and is_development_build():
        pytest.skip("a development build is not hardened")
    with open(request.param, "rb") as file:
        yield ELFFile(file)


def test_no_memory_is_both_written_and_run(elf: Any) -> None:
    segments = {
        segment["p_type"]: segment["p_flags"] for segment in elf.iter_segments()
    }
    assert "PT_GNU_STACK" in segments and not segments["PT_GNU_STACK"] & 1
    loaded = [s["p_flags"] for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
    assert loaded and not any(flags & 1 and flags & 2 for flags in loaded)
    assert "textrel" not in flags_of(elf)


def test_relocations_are_read_only(elf: Any) -> None:
    assert any(s["p_type"] == "PT_GNU_RELRO" for s in elf.iter_segments())
    if elf.stream.name == str(CORE):  # a distribution's libuv may bind lazily
        assert "now" in flags_of(elf)


def test_the_stack_is_watched(elf: Any) -> None:
    assert undefined(elf) & {"__stack_chk_fail", "__stack_chk_guard"}


def test_calls_of_the_c_library_are_checked(elf: Any) -> None:
    if not any(
        b"GLIBC_" in s.data() for s in elf.iter_sections() if s.name == ".dynstr"
    ):
        pytest.skip("only glibc checks")
    assert any(re.fullmatch(r"__\w+_chk", name) for name in undefined(elf))
