"""`runbook images save` with a double of Docker's client: what it tells, leaves alone, and never leaves half."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from click.testing import CliRunner
from docker.errors import APIError, DockerException, ImageNotFound
from docker_payloads import TAG, archive
from loopback import Loopback, Request, Reset, answer
from loopback import Piece as Ending

from runbook import images
from runbook.cli import main
from runbook.errors import ImageUnavailable, ParameterError
from runbook.remote.containers import archived_id
from runbook.site import Site

ZEROS = "0" * 64


class Engine:
    """What of DockerClient is used. It can break off after `whole` bytes, and has no registry unless `reached`."""

    def __init__(self, content: bytes, *, reached: bool = True, whole: int | None = None, has: bool = True) -> None:
        self.api = self.images = self
        self.content, self.reached, self.whole, self.has = content, reached, whole, has
        self.asked: list[str] = []
        self.attrs = {"Size": len(content)}

    def pull(self, tag: str, **_: Any) -> Iterator[dict[str, Any]]:
        self.asked.append(f"pull {tag}")
        if not self.reached:
            raise APIError("500", explanation="dial tcp: lookup registry-1.docker.io: no such host")
        self.has = True
        yield {"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 2}}
        yield {"status": "Pull complete", "id": "a", "progressDetail": {}}

    def get(self, tag: str) -> Engine:
        if not self.has:
            raise ImageNotFound("404")
        return self

    def get_image(self, tag: str) -> Iterator[bytes]:
        self.asked.append(f"save {tag}")
        yield self.content[: self.whole]
        if self.whole is not None:
            raise requests.exceptions.ChunkedEncodingError("connection broken")


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    archive(tmp_path / "made", TAG)
    return (tmp_path / "made").read_bytes()


def site(tmp_path: Path, name: str = "tiny.tar", sha256: str = ZEROS) -> Site:
    text = "name: t\nhosts: [{name: node1, address: 198.51.100.11, roles: [docker]}]\n"
    text += f'images: {{tiny: {{tag: "{TAG}", file: images/{name}, sha256: "{sha256}"}}}}\n'
    (tmp_path / "site.yml").write_text(text)
    return Site.load(tmp_path / "site.yml")


def use(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Engine:
    monkeypatch.setattr(docker, "from_env", lambda **_: engine)
    return engine


def test_an_image_is_pulled_by_its_tag_and_saved_whole(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = use(monkeypatch, Engine(content, has=False))
    (saved,) = images.save(site(tmp_path))
    assert engine.asked == [f"pull {TAG}", f"save {TAG}"]
    digest = hashlib.sha256(content).hexdigest()
    assert (saved.sha256, saved.was_there, saved.as_promised) == (digest, False, False)
    assert (tmp_path / "images" / "tiny.tar").read_bytes() == content
    assert images.lines([saved]) == f'images:\n  tiny:\n    sha256: "{digest}"\n'
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["tiny.tar"]

    # with its sum in the parameters nothing is done again, not even Docker asked
    monkeypatch.setattr(docker, "from_env", None)
    (again,) = images.save(site(tmp_path, sha256=digest))
    assert again.was_there
    assert images.lines([again]) == ""


def test_a_sum_that_is_not_the_parameters_is_not_just_to_be_pasted(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Engine(content))
    (first,) = images.save(site(tmp_path))
    assert str(first).endswith(": put its sum into the parameters")
    (saved,) = images.save(site(tmp_path, sha256="1" * 64))
    assert "see that the tag still means the image that was chosen" in str(saved)


def test_an_archive_whose_name_says_so_is_gzipped(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Engine(content))
    described = site(tmp_path, "tiny.tar.gz")
    sums = {saved.sha256 for _ in range(2) for saved in images.save(described, pull=False)}
    assert len(sums) == 1
    file = tmp_path / "images" / "tiny.tar.gz"
    assert gzip.decompress(file.read_bytes()) == content
    assert archived_id(file, TAG)


def test_what_breaks_off_leaves_the_earlier_archive(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Engine(content, whole=700))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "tiny.tar").write_bytes(b"the earlier one")
    with pytest.raises(ImageUnavailable, match="connection broken"):
        list(images.save(site(tmp_path)))
    assert (tmp_path / "images" / "tiny.tar").read_bytes() == b"the earlier one"
    assert len(list((tmp_path / "images").iterdir())) == 1


@pytest.mark.parametrize("end", [b"", Reset()])
def test_an_engine_that_dies_in_a_pull_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Ending) -> None:
    """By the real client, which asks for the version first."""

    def reply(request: Request) -> Iterator[Ending]:
        if request.target.endswith("/version"):
            yield answer(200, {"ApiVersion": "1.41", "MinAPIVersion": "1.12"})
        else:
            said = b'{"status": "Pulling"}\r\n'
            yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(said), said)
            yield end

    with Loopback(reply) as engine:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{engine.address}")
        with pytest.raises(ImageUnavailable, match=r"tiny:1 cannot be had: .*Connection broken"):
            list(images.save(site(tmp_path)))


def test_an_unreachable_registry_and_a_missing_docker_are_named(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = site(tmp_path)
    use(monkeypatch, Engine(content, reached=False))
    with pytest.raises(ImageUnavailable, match=r"(?s)tiny:1 cannot be had: dial tcp.*--no-pull"):
        list(images.save(described))
    use(monkeypatch, Engine(content, has=False))
    with pytest.raises(ImageUnavailable, match=r"no image dockerpart/tiny:1 in this machine's Docker"):
        list(images.save(described, pull=False))

    def nowhere(**_: Any) -> None:
        raise DockerException("Error while fetching server API version")

    monkeypatch.setattr(docker, "from_env", nowhere)
    with pytest.raises(ImageUnavailable, match="no Docker engine answers"):
        list(images.save(described))


def test_a_name_that_is_not_declared_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "from_env", None)
    with pytest.raises(ParameterError, match="no tinny is declared under images"):
        list(images.save(site(tmp_path), ["tiny", "tinny"]))


def test_the_command_prints_what_to_paste(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Engine(content))
    site(tmp_path)
    done = CliRunner().invoke(main, ["images", "save", str(tmp_path / "site.yml"), "--no-pull", "--only", "tiny"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"tiny: {TAG} saved as {tmp_path}/images/tiny.tar: put its sum into the parameters",
        "images:",
        "  tiny:",
        f'    sha256: "{hashlib.sha256(content).hexdigest()}"',
    ]
