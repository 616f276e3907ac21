"""Deployments as the tests of the whole flow have them."""

from tests.flow.conftest import deploy, new_database

__all__ = ["deploy", "new_database"]
