"""What every System State Store must do.

Subclass the suite in your tests and say how a store is made::

    class TestMyStore(StateStoreConformance):
        @pytest.fixture
        def factory(self, tmp_path):
            return lambda: MyStore(tmp_path / "events")

``factory()`` returns a store that is not open yet; each call within one test gives a store on the same data, which is
empty at the test's start. A store that forgets when it is closed says ``durable = False``. Tests run under
pytest-asyncio with ``asyncio_mode = "auto"``.
"""

from pkgutil import iter_modules

import pytest

# Before they are imported, so that a failing assert shows its values.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from evento.testing.conformance.state_store.suite import StateStoreConformance  # noqa: E402

__all__ = ["StateStoreConformance"]
