"""Choices between kernels that compute the same: this backend has one kernel for everything."""

from kernels.validation import check_kernel_choices


def kernel_choices():
    return {}


def pin_kernel_choices(choices):
    check_kernel_choices(choices)
