"""Describe the machine in pytest-benchmark's JSON file as the other programs do."""

from bench.common import machine


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.update(machine())
