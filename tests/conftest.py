"""Options and order of the tests."""

from collections import Counter


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="build every architecture of timm for the census, not a third")


def pytest_collection_modifyitems(items):
    """Files with slow tests first: begun last, the longest of them would run alone while the other process is done."""
    slow = Counter(item.nodeid.partition("::")[0] for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.nodeid.partition("::")[0]])
