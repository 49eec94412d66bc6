"""The fixture for this folder's tests."""

from tests.hub.fixture import hub

__all__ = ["hub"]
