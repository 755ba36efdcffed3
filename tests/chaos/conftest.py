from collections.abc import Iterator

import pytest

from tests.chaos.world import World


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all scenarios: each adds to what those before it left, and all of it has to add
    up.
    """
    world = World(tmp_path_factory.mktemp("chaos"), seed=1)
    world.open()
    try:
        yield world
    finally:
        world.close()
