"""Where things are, from wherever one starts."""

from __future__ import annotations

from pathlib import Path


def upwards(path: str | Path) -> Path:
    """`path`, looked up in the working folder and then in those above it; unchanged where it is nowhere.

    So `parameters/lab.yml` means the same in JupyterLab, whose kernels start in notebooks/, and at the top.
    """
    wanted = Path(path)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / wanted).exists():
            return wanted if folder == here else folder / wanted
    return wanted
