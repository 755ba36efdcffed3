"""Helpers that several test suites share: processes, brokers, sample events, fakes.

Helpers of one suite stay in its folder.
"""
