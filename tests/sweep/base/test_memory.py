"""Memory is the container's where that is less: control groups as Linux shows them."""

import psutil
import pytest

from sweep.base.memory import host_memory

MIB = 1 << 20


def group(folder, names, limit, used, cache):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("below", "names", "line"), [("", V2, "0::/pod/box"), ("memory", V1, "7:cpu:/x\n5:memory:/pod/box")]
)
def test_the_tightest_group_counts(tmp_path, below, names, line):
    (tmp_path / "own").write_text(f"{line}\n")
    root = tmp_path / "groups"
    group(root / below / "pod/box", names, "max", 10 * MIB, 0)
    group(root / below / "pod", names, 64 * MIB, 40 * MIB, 8 * MIB)
    assert host_memory(root, tmp_path / "own") == (32 * MIB, 64 * MIB)


def test_without_groups_it_is_the_machines(tmp_path):
    free, total = host_memory(tmp_path / "none", tmp_path / "none")
    assert total == psutil.virtual_memory().total
    assert 0 < free <= total
