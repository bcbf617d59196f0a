"""Options of the tests."""


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="build every architecture of timm for the census, not a third")
