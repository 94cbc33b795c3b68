"""What the programs work on: a source tree, a repository of it, packages for npm, a C project; made once in a run."""

import io
import json
import shutil
import sysconfig
import tarfile
from pathlib import Path

from bench.workload import program

# How often the sources of Python's standard library are in the tree, by Level: 668 files and 11 MiB
# in Debian's Python 3.11.
TREE_COPIES = (4, 1, 1)
_COMMITS = 8
_CHANGED = 40  # files in each commit
_PACKAGE_FILES = 20


def tree(where: Path, copies: int) -> Path:
    """Return a directory with *copies* of the standard library's sources, no two files alike."""
    top = where / f"tree{copies}"
    if top.exists():
        return top
    unfinished = where / "unfinished"
    library = Path(sysconfig.get_path("stdlib"))
    sources = [
        path
        for path in sorted(library.rglob("*.py"))
        if not {"site-packages", "dist-packages", "test", "tests"} & set(path.parts)
    ]
    for copy in range(copies):
        for source in sources:
            destination = unfinished / f"copy{copy}" / source.relative_to(library)
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(f"# copy {copy}\n".encode() + source.read_bytes())
    unfinished.rename(top)
    return top


def archive(where: Path, copies: int) -> Path:
    """Return a tar archive of the tree."""
    path = where / f"tree{copies}.tar"
    if not path.exists():
        with tarfile.open(path, "w") as tar:
            tar.add(tree(where, copies), arcname="tree", filter=_whole_seconds)
    return path


def _whole_seconds(about: tarfile.TarInfo) -> tarfile.TarInfo:
    about.mtime = int(about.mtime)  # bindfs loses the nanoseconds
    return about


def compressed(where: Path, copies: int) -> Path:
    """Return the archive as it would be published."""
    path = where / f"tree{copies}.tar.xz"
    if not path.exists():
        program("xz", "--keep", archive(where, copies))
    return path


def repository(where: Path, copies: int) -> Path:
    """Return a bare git repository of the tree with some commits."""
    bare = where / f"tree{copies}.git"
    if bare.exists():
        return bare
    work = where / "work"
    shutil.copytree(tree(where, copies), work)
    program("git", "init", "-q", "-b", "main", cwd=work)
    program("git", "config", "user.name", "bench", cwd=work)
    program("git", "config", "user.email", "bench@localhost", cwd=work)
    files = sorted(work.rglob("*.py"))
    for commit in range(_COMMITS):
        for file in files[commit * _CHANGED : (commit + 1) * _CHANGED] if commit else ():
            with open(file, "a", encoding="utf-8") as text:
                text.write(f"# commit {commit}\n")
        program("git", "add", "-A", cwd=work)
        program("git", "commit", "-q", "-m", f"commit {commit}", cwd=work)
    program("git", "clone", "-q", "--bare", work, bare)
    program("git", "repack", "-a", "-d", "-q", cwd=bare)
    return bare


def packages(where: Path, count: int) -> Path:
    """Return a directory of *count* packages as npm packs them, without dependencies."""
    top = where / f"packages{count}"
    if top.exists():
        return top
    unfinished = where / "unfinished"
    unfinished.mkdir()
    for index in range(count):
        about = {"name": f"package{index}", "version": "1.0.0", "main": "file0.js"}
        with tarfile.open(unfinished / f"package{index}.tgz", "w:gz", compresslevel=1) as tar:
            _add(tar, "package/package.json", json.dumps(about))
            for file in range(_PACKAGE_FILES):
                lines = (f"exports.f{line} = x => x + {index * line};\n" for line in range(80))
                _add(tar, f"package/{'lib/' if file % 2 else ''}file{file}.js", "".join(lines))
    unfinished.rename(top)
    return top


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(text)
    tar.addfile(about, io.BytesIO(text.encode()))


def write_npm_project(place: Path, packed: Path) -> None:
    """Write a project that depends on all packages in *packed*."""
    files = {path.stem: f"file:{path}" for path in packed.iterdir()}
    about = {"name": "project", "version": "1.0.0", "private": True, "dependencies": files}
    (place / "package.json").write_text(json.dumps(about))


def write_c_project(place: Path, count: int) -> None:
    """Write *count* C files with something for an optimiser to do, and their Makefile."""
    for index in range(count):
        functions = "\n".join(_C_FUNCTION.format(index=index, part=part) for part in range(24))
        calls = " + ".join(f"(f{index}_{part}(a, 64) & 0)" for part in range(24))
        (place / f"part{index}.c").write_text(
            f'#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include "parts.h"\n{functions}\n'
            f"int part{index}(void) {{ double a[64] = {{0}}; return 1 + {calls}; }}\n"
        )
    declared = "".join(f"int part{index}(void);\n" for index in range(count))
    total = " + ".join(f"part{index}()" for index in range(count))
    (place / "parts.h").write_text(declared)
    (place / "main.c").write_text(
        f'#include <stdio.h>\n#include "parts.h"\nint main(void) {{ printf("%d\\n", {total}); }}\n'
    )
    (place / "Makefile").write_text(
        "OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\n"
        "main: $(OBJECTS)\n\tgcc -o $@ $^ -lm\n"
        "%.o: %.c parts.h\n\tgcc -O2 -c -o $@ $<\n"
    )


_C_FUNCTION = """
static int f{index}_{part}(double *a, int n) {{
    double sum = {part}.5;
    for (int i = 0; i < n; i++) {{
        for (int j = i; j < n; j++) a[j] = a[j] * 1.25 + sin(a[i] + j * {index});
        switch ((int)a[i] % 7) {{
            case 0: sum += a[i]; break;
            case 1: sum -= a[i] * 2; break;
            case 2: sum = sqrt(fabs(sum)); break;
            case 3: a[i] = sum / 3; break;
            default: sum += i;
        }}
    }}
    return (int)sum;
}}
"""
