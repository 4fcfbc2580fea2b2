import pytest


def pytest_addoption(parser):
    parser.addoption("--elements", type=int, default=200_000, help="size of a large workload")


@pytest.fixture
def elements(request):
    return request.config.getoption("--elements")
