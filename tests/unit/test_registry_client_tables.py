"""Tables of what a registry holds: their types, what is shared, and what is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from loopback import Loopback, Piece, Request, answer

from runbook.errors import AccessDenied, EndpointUnreachable
from runbook.services.mesos.tables import Schema
from runbook.services.registry import (
    Descriptor,
    History,
    ImageConfig,
    Manifest,
    Registry,
    Survey,
    Tagged,
    history_table,
    layers_table,
    repositories_table,
    survey,
    tags_table,
)
from runbook.services.registry.manifests import DOCKER_LIST, DOCKER_MANIFEST, SCHEMA1
from runbook.services.registry.names import digest_of
from runbook.services.registry.tables import HISTORY, LAYERS, REPOSITORIES, TAGS

NOW = datetime(2016, 6, 3, tzinfo=UTC)


def blob(number: int, size: int | None) -> Descriptor:
    return Descriptor("", f"sha256:{number:064x}", size)


def image(number: int, *layers: Descriptor, kind: str = DOCKER_MANIFEST) -> Manifest:
    config = blob(1000 + number, 100) if kind == DOCKER_MANIFEST else None
    return Manifest("a", kind, f"sha256:{number:064x}", b"{}", config, layers)


def tagged(tag: str, *images: Manifest, days: float | None = 1, repository: str = "a") -> Tagged:
    created = None if days is None else NOW - timedelta(days=days)
    configs = tuple(ImageConfig(created, "amd64", "linux") for _ in images)
    return Tagged(repository, tag, images[0].digest, images[0], images, configs)


def surveyed(*rows: Tagged, repositories: tuple[str, ...] = ("a",)) -> Survey:
    return Survey(repositories, rows, NOW.timestamp())


@pytest.mark.parametrize(
    ("make", "schema"), [(repositories_table, REPOSITORIES), (tags_table, TAGS), (layers_table, LAYERS)]
)
def test_empty_tables_have_the_types_of_full_ones(make: Callable[[Survey], pd.DataFrame], schema: Schema) -> None:
    empty = make(surveyed(repositories=()))
    full = make(surveyed(tagged("1", image(1, blob(1, 7)))))
    assert (len(empty), len(full)) == (0, 1)
    for table in (empty, full):
        assert {name: str(kind) for name, kind in table.dtypes.items()} == dict(schema)


def test_sizes_count_once_what_is_shared() -> None:
    base, one, two = blob(1, 1000), blob(2, 10), blob(3, 20)
    found = surveyed(
        tagged("1", image(1, base, one)), tagged("1.0", image(1, base, one)), tagged("2", image(2, base, two), days=3)
    )
    repositories = repositories_table(found).iloc[0]
    assert repositories["size"] == 1000 + 10 + 20 + 2 * 100
    assert repositories["newest"] == pd.Timestamp(NOW) - pd.Timedelta(days=1)
    tags = tags_table(found)
    assert tags["size"].tolist() == [1110, 1110, 1120]
    assert tags["shared_with"].fillna("-").tolist() == ["1.0", "1", "-"]
    assert tags["age"].tolist() == [pd.Timedelta(days=1)] * 2 + [pd.Timedelta(days=3)]
    layers = layers_table(found)
    assert layers["size"].tolist() == [1000, 20, 10]
    assert layers["images"].tolist() == [2, 1, 1]
    assert layers["tags"].tolist() == [3, 1, 2]


def test_the_same_tag_of_another_repository_does_not_go_along() -> None:
    found = surveyed(
        tagged("1", image(1, blob(1, 5))), tagged("2", image(1, blob(1, 5)), repository="b"), repositories=("a", "b")
    )
    assert tags_table(found)["shared_with"].isna().all()
    layers = layers_table(found).iloc[0]
    assert (layers["images"], layers["repositories"], layers["used_by"]) == (1, 2, "a:1, b:2")


def test_what_is_not_known_stays_unknown() -> None:
    old = tagged("old", image(1, blob(1, None), kind=SCHEMA1), days=None)
    lost = Tagged("a", "lost", problem="MANIFEST_UNKNOWN")
    found = surveyed(old, lost)
    tags = tags_table(found).set_index("tag")
    assert tags.loc["old", "layers"] == 1
    assert tags["size"].isna().all()
    assert tags["created"].isna().all()
    assert tags["age"].isna().all()
    assert tags.loc["lost"].drop(["repository", "problem"]).isna().all()
    assert tags.loc["lost", "problem"] == "MANIFEST_UNKNOWN"
    repositories = repositories_table(found).iloc[0]
    assert repositories["tags"] == 2
    assert pd.isna(repositories["size"])
    assert pd.isna(layers_table(found).iloc[0]["size"])


def test_a_clock_that_is_behind_makes_no_negative_age() -> None:
    assert tags_table(surveyed(tagged("1", image(1), days=-1)))["age"].tolist() == [pd.Timedelta(0)]


def test_an_index_is_as_big_as_all_its_images() -> None:
    index = Manifest(
        "a",
        DOCKER_LIST,
        f"sha256:{9:064x}",
        b"{}",
        manifests=(Descriptor(DOCKER_MANIFEST, f"sha256:{1:064x}", 2, "linux/arm/v7"),),
    )
    images = (image(1, blob(1, 10)), image(2, blob(1, 10), blob(2, 5)))
    row = tags_table(surveyed(Tagged("a", "all", index.digest, index, images))).iloc[0]
    assert (row["size"], row["layers"], row["platforms"]) == (10 + 5 + 200, 2, "linux/arm/v7")


def test_history_shows_which_step_left_which_layer() -> None:
    steps = (
        History(NOW, "ADD", empty=False),
        History(None, "CMD", empty=True),
        History(NOW, "RUN", empty=False),
        History(NOW, "more steps than layers", empty=False),
    )
    made = image(1, blob(1, 10), blob(2, 5))
    table = history_table(made, ImageConfig(NOW, history=steps))
    assert {name: str(kind) for name, kind in table.dtypes.items()} == dict(HISTORY)
    assert table["size"].fillna(-1).tolist() == [10, -1, 5, -1]
    assert table["created"].isna().tolist() == [False, True, False, False]


# what is met on the way


def reply(request: Request) -> Piece:
    """A registry that lost manifests and a configuration, and cannot read another one."""
    match request.method, request.target.removeprefix("/v2/"):
        case _, "a/tags/list":
            return answer(200, {"name": "a", "tags": ["broken", "gone", "odd", "unconfigured"]})
        case "HEAD", "a/manifests/gone":
            return answer(404)
        case "HEAD", "a/manifests/broken":
            return answer(200, Docker_Content_Digest=f"sha256:{1:064x}")
        case "HEAD", "a/manifests/odd":
            return answer(200, Docker_Content_Digest=f"sha256:{2:064x}")
        case "HEAD", "a/manifests/unconfigured":
            return answer(200, Docker_Content_Digest=UNCONFIGURED)
        case "GET", target if target.endswith(f"{1:064x}"):
            return answer(500, {"errors": [{"code": "UNKNOWN", "message": "unknown error"}]})
        case "GET", target if target.endswith(f"{2:064x}"):
            return answer(200, "{}", kind=DOCKER_MANIFEST)
        case "GET", target if target.endswith(UNCONFIGURED):
            return answer(200, WITHOUT_CONFIG, kind=DOCKER_MANIFEST)
        case _:
            return answer(404, {"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}]})


WITHOUT_CONFIG = b'{"schemaVersion": 2, "config": {"digest": "sha256:%s", "size": 7}, "layers": []}' % (b"0" * 64)
UNCONFIGURED = digest_of(WITHOUT_CONFIG)


def test_what_is_lost_or_damaged_is_a_problem_of_its_tag() -> None:
    with Loopback(lambda request: [reply(request)]) as server, Registry(server.url) as client:
        problems = tags_table(survey(client, ["a"])).set_index("tag")["problem"]
    assert "unknown error" in problems["broken"]
    assert "it is not there" in problems["gone"]
    assert "not a manifest that can be read" in problems["odd"]
    assert "BLOB_UNKNOWN" in problems["unconfigured"]


def test_a_registry_that_cannot_be_asked_is_an_error() -> None:
    with Loopback(lambda _: []) as gone:
        pass
    with Registry(gone.url) as client, pytest.raises(EndpointUnreachable):
        survey(client, ["a"])
    with (
        Loopback(lambda _: [answer(403, {"errors": [{"code": "DENIED", "message": "no"}]})]) as server,
        Registry(server.url) as client,
        pytest.raises(AccessDenied),
    ):
        survey(client, ["a"])
