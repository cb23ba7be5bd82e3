"""The bench: a pytest plugin that runs tests on any rack, tests to accept one, and `bms doctor`."""
