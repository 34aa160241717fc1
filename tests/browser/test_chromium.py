"""How Chromium comes to be there, or what is said where it is not."""

import os
import shutil
import subprocess

import pytest


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
@pytest.mark.parametrize("there", [True, False])
def test_make_is_silent_where_chromium_is_and_says_what_to_install_where_it_is_not(there, repository, tmp_path):
    for name in ("cat", "id", "sh"):
        (tmp_path / name).symlink_to(shutil.which(name))
    if there:
        (tmp_path / "chromium").write_text("#!/bin/sh\n")
        (tmp_path / "chromium").chmod(0o755)
    ended = subprocess.run(
        [shutil.which("make"), "-s", "browser"],
        cwd=repository,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if there:
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    else:
        assert ended.returncode != 0
        assert "the browser tests need Chromium; as root: apt-get install -y chromium" in ended.stderr
