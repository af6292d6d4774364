"""tandem_build_info names the commit: ordinary builds said "unknown"."""

import pathlib
import re
import subprocess

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "cmake" / "WriteCommit.cmake"


def git(folder, *arguments):
    return subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments],
                          cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit_of(folder, told=""):
    out = folder / "out" / "build_commit.h"
    subprocess.run(["cmake", f"-DSOURCE_DIR={folder}", f"-DCOMMIT={told}", f"-DOUT={out}", "-P",
                    str(SCRIPT)], check=True, capture_output=True)
    return re.fullmatch(r'#define TANDEM_COMMIT "(.*)"\n', out.read_text())[1]


def test_it_is_what_git_says_unless_it_is_told(tmp_path):
    assert commit_of(tmp_path) == "unknown"
    assert commit_of(tmp_path, told="abc") == "abc"
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert commit_of(tmp_path) == head
    made_at = (tmp_path / "out" / "build_commit.h").stat().st_mtime_ns
    assert commit_of(tmp_path) == head  # and nothing is compiled anew
    assert (tmp_path / "out" / "build_commit.h").stat().st_mtime_ns == made_at
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path) == head + "-dirty"
