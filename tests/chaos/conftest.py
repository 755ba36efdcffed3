from collections.abc import Iterator

import pytest

from tests.chaos.harness import ChaosHarness


@pytest.fixture(scope="package")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosHarness]:
    """One harness for all scenarios: each continues from the state of the previous ones, and all
    records must be accounted for.
    """
    harness = ChaosHarness(tmp_path_factory.mktemp("chaos"), seed=1)
    harness.open()
    try:
        yield harness
    finally:
        harness.close()
